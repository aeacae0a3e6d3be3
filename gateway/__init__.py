"""The edge: limits, shedding, degradation, breakers and a proxy. Knows nothing of shops."""

from gateway.compiled import take

take()
