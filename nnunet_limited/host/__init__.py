"""Everything that touches the edges of nnunetv2: discovery, folders, raw datasets, files."""
