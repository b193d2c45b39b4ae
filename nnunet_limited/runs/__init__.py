"""What is done with trainers: variants of plans, launching, cross-validation, self-training, prediction."""
