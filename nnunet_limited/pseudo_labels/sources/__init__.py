"""Sources of pseudo-labels, one in each module; ``spec.py`` registers them."""
