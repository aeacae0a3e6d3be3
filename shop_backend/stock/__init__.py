"""Stock on the durable Redis."""
