"""Pure decisions. Standard library only."""
