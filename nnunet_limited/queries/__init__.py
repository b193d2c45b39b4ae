"""Active learning: which case, slice or patch to annotate next."""
