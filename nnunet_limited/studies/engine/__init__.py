"""The engine of all studies: study file, folder, steps of a run, workflow, failures, common parts of reports."""
