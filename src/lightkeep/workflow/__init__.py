"""The durable chain of verbs: when, again, after failure."""
