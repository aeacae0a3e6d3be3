"""What may refuse or answer a request on its way; their order stands in pipeline.py."""
