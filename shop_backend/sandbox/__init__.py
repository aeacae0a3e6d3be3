"""A payment provider to rehearse against: checkout page, signed callbacks, retries, storms."""
