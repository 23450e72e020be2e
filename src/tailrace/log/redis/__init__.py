"""Logs in Redis, shared by processes and machines."""
