"""Conformance suites: what every store, engine, format and technique must do."""
