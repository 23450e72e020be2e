"""Wires: how the events of a log are spelled. Bytes in, frames out and back; nothing here awaits."""
