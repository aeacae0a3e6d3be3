"""The commands of `tidegate`, one file for each kind. Heavy modules are imported by those that need them."""
