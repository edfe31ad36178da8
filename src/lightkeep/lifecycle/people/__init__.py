"""Experiments, proposals, people, and what they set up."""
