"""Techniques, commands and workflows on datasets."""
