"""Talking to the servers behind the gate."""
