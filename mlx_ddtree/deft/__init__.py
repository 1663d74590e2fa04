"""DeFT (arXiv 2404.00242): attention of many queries that share prefixes, grouped by keys and values.  Exact."""
