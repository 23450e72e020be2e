"""`tailrace chat` on a terminal: a prompt, the commands, and replies that appear as they arrive."""
