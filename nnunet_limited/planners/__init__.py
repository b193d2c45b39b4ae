"""Fingerprint and plans over a split: what planning may see is what the split says is labelled."""
