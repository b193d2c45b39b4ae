"""Pseudo-labels of unlabelled cases, from a trained model or from several sources."""
