"""Storefront pages: templates, static files, and the routes that serve them."""
