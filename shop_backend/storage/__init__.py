"""SQL: pools and migrations."""
