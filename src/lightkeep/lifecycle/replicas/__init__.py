"""Copies of files on stores: made, verified, repaired, archived, brought back."""
