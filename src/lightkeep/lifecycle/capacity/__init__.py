"""Who uses how much, and when a store is full."""
