"""A process's logs, their producers and readers, and the shutdown of all three."""
