"""Preprocessed cases with and without label, the two-stream loader, weak and strong views."""
