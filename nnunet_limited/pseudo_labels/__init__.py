"""Where pseudo-labels come from: what a model, and later other sources, say of the unlabelled cases."""
