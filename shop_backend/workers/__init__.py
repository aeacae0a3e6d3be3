"""Background work: one handler per stream, and the loops beside them."""
