"""Raw datasets: read, derived from others, or synthetic."""
