"""Every invariant of the shop, checked against PostgreSQL, Redis and the provider."""
