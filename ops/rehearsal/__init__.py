"""A rehearsal: the night before it comes. A crowd, what it saw, and whether every promise was kept."""
