"""Simulated active learning: query strategies by targets, methods and seeds, answered by the hidden labels."""
