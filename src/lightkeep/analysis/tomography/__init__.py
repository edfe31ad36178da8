"""Parallel-beam tomography: line integrals, rotation centre, reconstruction."""
