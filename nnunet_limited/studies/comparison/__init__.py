"""Comparison studies: methods by datasets, labelled sizes, seeds and folds."""
