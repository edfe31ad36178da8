"""Lightkeep keeps what a light source's beamlines measure and turns it into results while the beam is on."""

__version__ = "0.1.0"
