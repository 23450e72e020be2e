"""The command line: `tailrace COMMAND`. Each command is a module; `commands.COMMANDS` lists them."""
