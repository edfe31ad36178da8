"""The catalogue: what exists, who may see it, and the audit trail."""
