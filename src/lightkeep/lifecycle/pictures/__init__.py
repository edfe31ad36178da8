"""What a dataset looks like: pictures and curves for the portal."""
