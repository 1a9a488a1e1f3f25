"""Training of the demo models; the only part of the shapes family that needs torch."""
