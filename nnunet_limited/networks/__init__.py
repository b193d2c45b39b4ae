"""Partners of the student: networks that are there for training only."""
