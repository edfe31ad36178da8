"""Measurements with exactly known truth."""
