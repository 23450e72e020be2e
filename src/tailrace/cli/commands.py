"""The command line of `tailrace`: what it may be, and who does what it says."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

from .. import __version__
from .chat import CHAT
from .command import Command, CommandError, UsageError
from .notices import say
from .serve import SERVE
from .tail import TAIL

COMMANDS: tuple[Command, ...] = (SERVE, CHAT, TAIL)


class Parser(ArgumentParser):
    """Errors are one line, without the usage around it."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {message}; see {self.prog} --help")
        self.exit(UsageError.status)


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


def run(arguments: Sequence[str] | None) -> int:
    """Run the command that `arguments` say, by default those of the process; its exit status."""
    _print_anything()
    options, unknown = make_parser().parse_known_args(arguments)
    command: Command = options.command
    if unknown:
        # Said by the command's own parser, whose help is the one that lists the others.
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        return command.run(options)
    except CommandError as error:
        say(f"tailrace {command.name}: {error}")
        return error.status


def _print_anything() -> None:
    """What the output's encoding has no character for, as ASCII has none for the one in `[…]`, is no error."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
