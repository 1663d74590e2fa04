"""Array primitives of the decode round, each in plain MLX; Metal kernels plug in beside them."""
