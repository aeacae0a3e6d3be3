"""The edge: limits, shedding, degradation, breakers and a proxy. Knows nothing of shops."""
