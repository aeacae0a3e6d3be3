"""One revision per file, with its SQL beside it."""
