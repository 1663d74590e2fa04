"""Which tree to verify: what rounds cost, how often drafts are right, and the choice between sizes.  Pure numpy."""
