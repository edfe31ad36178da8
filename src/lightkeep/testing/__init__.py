"""Fakes, conformance suites and simulated beamlines, shipped for everybody who extends Lightkeep."""
