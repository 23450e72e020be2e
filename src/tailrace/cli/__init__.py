"""The command line: `tailrace COMMAND`. Each command is a file, listed in `commands.COMMANDS`."""
