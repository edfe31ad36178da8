"""The verbs: one verb, one file; each idempotent, each on behalf of a principal."""
