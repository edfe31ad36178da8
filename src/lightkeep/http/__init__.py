"""The HTTP API face."""
