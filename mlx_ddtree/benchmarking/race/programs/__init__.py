"""Adapters of the programs that race, a file each, run by those programs' own Python."""
