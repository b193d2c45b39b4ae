"""Studies: methods x labelled sizes x folds x seeds, from one file to one page."""
