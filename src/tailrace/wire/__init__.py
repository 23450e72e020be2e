"""Wires: encoders from a log's events to bytes, and decoders from bytes to frames. Nothing here awaits."""
