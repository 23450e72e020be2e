"""Wires: how the events of a log become bytes, and bytes become frames. Nothing here awaits."""
