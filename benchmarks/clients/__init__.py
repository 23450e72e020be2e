"""Programs that are measured as clients: each measures one peer in its own process, and prints a sample as JSON."""
