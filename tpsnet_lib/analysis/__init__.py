"""Numbers for the notebooks: a module for each notebook, and what they share."""
