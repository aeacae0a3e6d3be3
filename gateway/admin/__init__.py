"""What operators see and switch, on a port of its own."""
