"""A lean shop for digital goods. Knows nothing of the gateway."""
