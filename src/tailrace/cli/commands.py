"""The command line of `tailrace`: its commands and its parser."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

from .. import __version__
from ..cursor import is_cursor
from .chat import CHAT
from .command import Command, CommandError, UsageError, say
from .rover import ROVER
from .serve import SERVE
from .tail import TAIL

COMMANDS: tuple[Command, ...] = (SERVE, CHAT, TAIL, ROVER)


class Parser(ArgumentParser):
    """A parser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {message}; see {self.prog} --help")
        self.exit(UsageError.status)


def make_parser() -> Parser:
    parser = Parser(prog="tailrace", description="Streams that survive the network.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"tailrace {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS:
        subparser = commands.add_parser(
            command.name, help=command.summary, description=command.summary, allow_abbrev=False
        )
        command.configure(subparser)
        subparser.set_defaults(command=command, parser=subparser)
    return parser


def run(arguments: Sequence[str] | None) -> int:
    """Run a command line, by default that of the process, and return the exit status."""
    if isinstance(sys.stdout, TextIOWrapper):
        # Do not fail for a character that the output cannot encode, such as an ellipsis in ASCII.
        sys.stdout.reconfigure(errors="replace")
    options, unknown = make_parser().parse_known_args(_joined(sys.argv[1:] if arguments is None else arguments))
    command: Command = options.command
    if unknown:
        # Let the command's own parser report unknown options, because its help lists the known ones.
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        return command.run(options)
    except CommandError as error:
        say(f"tailrace {command.name}: {error}")
        return error.status


def _joined(arguments: Sequence[str]) -> list[str]:
    """Join `--after` and its cursor, which may begin with a dash: argparse would take it for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--after" and is_cursor(argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined
