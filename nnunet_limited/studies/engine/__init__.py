"""What all kinds of studies share: the study file, its folder, the steps of a run, the workflow that runs them."""
