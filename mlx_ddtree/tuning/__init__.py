"""What is measured once for a pair on a machine: seconds of rounds, kernels that win, how forwards round."""
