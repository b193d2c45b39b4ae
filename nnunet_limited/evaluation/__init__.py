"""Cross-validation and comparison of trained folds."""
