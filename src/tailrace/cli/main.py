"""The entry point of `tailrace`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from .chat import CHAT
from .command import Command, CommandError, UsageError
from .serve import SERVE
from .tail import TAIL

COMMANDS: tuple[Command, ...] = (SERVE, CHAT, TAIL)

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C ended, as shells have it."""


class Parser(ArgumentParser):
    """Errors are one line, without the usage around it."""

    def error(self, message: str) -> NoReturn:
        self.exit(UsageError.status, f"{self.prog}: {message}; see {self.prog} --help\n")


def make_parser() -> Parser:
    parser = Parser(prog="tailrace", description="Streams that survive the network.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"tailrace {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS:
        of_its_own = commands.add_parser(
            command.name, help=command.summary, description=command.summary, allow_abbrev=False
        )
        command.configure(of_its_own)
        of_its_own.set_defaults(command=command, parser=of_its_own)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` say, by default those of the process; its exit status."""
    options, unknown = make_parser().parse_known_args(arguments)
    command: Command = options.command
    if unknown:
        # Said by the command's own parser, whose help is the one that lists the others.
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        return command.run(options)
    except CommandError as error:
        print(f"tailrace {command.name}: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED
