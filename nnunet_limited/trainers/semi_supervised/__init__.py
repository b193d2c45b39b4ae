"""Methods that learn from unlabelled cases, a page each."""
