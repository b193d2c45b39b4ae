"""Query strategies: how to choose the windows to annotate."""
