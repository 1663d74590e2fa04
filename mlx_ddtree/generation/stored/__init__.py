"""Beginnings of prompts in a folder: what one server has processed, the next one need not."""
