"""Methods for labels that cover a part of each image."""
