"""Logs: append-only sequences of events with exactly one end."""
