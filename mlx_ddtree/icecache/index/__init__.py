"""Pages of similar keys: which token stands in which page, and which pages a query should read."""
