"""Sparse labels that people made, as annotations on the grid of their image."""
