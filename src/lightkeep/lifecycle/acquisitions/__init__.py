"""Data that come in while they are measured."""
