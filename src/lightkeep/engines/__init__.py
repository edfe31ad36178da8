"""Where work runs: inline, processes."""
