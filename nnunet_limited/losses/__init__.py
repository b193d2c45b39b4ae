"""Losses on tensors; no trainer and no nnU-Net in here."""
