"""Metrics of segmentation, statistics of studies, areas under learning curves; without nnU-Net."""
