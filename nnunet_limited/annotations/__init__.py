"""Sparse labels: simulated from dense ones, or brought in from people. Nothing here needs nnU-Net."""
