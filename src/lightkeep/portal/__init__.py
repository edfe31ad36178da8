"""The web portal face."""
