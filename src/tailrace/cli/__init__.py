"""The command line: `tailrace COMMAND`. Each command is a file, listed in `main.COMMANDS`."""
