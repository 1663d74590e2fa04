"""Trees, bars and small tables as SVG and HTML that need no file beside them; standard library only."""
