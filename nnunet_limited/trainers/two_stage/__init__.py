"""Methods that learn stored pseudo-labels."""
