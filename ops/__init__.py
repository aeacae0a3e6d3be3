"""The operator's toolkit: the console script `tidegate`."""
