"""Measurements against peers: `python -m bench [all|part]`."""
