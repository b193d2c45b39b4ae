"""How well a prediction agrees with the truth, and how sure that is."""
