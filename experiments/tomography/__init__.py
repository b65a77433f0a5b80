"""Computed tomography: the system matrix, simulated scans, and four ways back to the image."""
