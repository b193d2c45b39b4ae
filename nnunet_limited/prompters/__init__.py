"""Models that outline what a prompt points at, the prompts, and what becomes of a volume asked about slice by slice."""
