"""What was measured becomes a dataset."""
