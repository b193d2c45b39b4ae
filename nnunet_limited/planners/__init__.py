"""Fingerprint and plans of a split: planning reads only the labels that the split does not hide."""
