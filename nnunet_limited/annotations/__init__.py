"""Sparse labels, simulated from dense ones or imported. Nothing here needs nnU-Net."""
