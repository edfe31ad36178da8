"""Is everything as it should be? Examined, never repaired."""
