"""Answers of a given form: JSON schemas, regular expressions and grammars, along every path of a draft tree."""
