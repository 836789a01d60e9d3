"""A sub-command of ``%sandbox``, and the parser made of all of them."""

from __future__ import annotations

import argparse
import enum
import inspect
import keyword
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sandbox_nb.grammar import Parser
from sandbox_nb.notebook.magics.session import Session
from sandbox_nb.notebook.magics.words import Filled

COMPLETE_NAME = "sandbox"
COMPLETE_GUEST_PATH = "guest path"
COMPLETE_PLACE = "place"
COMPLETE_ATTACHED = "attached device"
COMPLETE_VARIABLE = "variable"
COMPLETE_METHOD = "method"
COMPLETE_VERB = "verb"
"""What kind of word an argument takes: its ``complete`` (see ``grammar``)."""


class Cell(enum.Enum):
    """Whether a sub-command takes the text of a cell."""

    NEVER = "never"
    MAY = "may"
    MUST = "must"


def _nothing(parser: Parser) -> None:
    """Most take no arguments of their own."""


@dataclass(frozen=True)
class Verb:
    """A sub-command: what it does, and what it takes. The first line of the doc string of ``act`` is its help."""

    name: str
    act: Callable[[Session, argparse.Namespace], Any]
    arguments: Callable[[Parser], None] = _nothing
    cell: Cell = Cell.NEVER
    named: bool = True
    """Whether it takes ``--name``: which sandbox is meant."""
    json: bool = False
    """Whether its line ends with JSON."""

    @property
    def summary(self) -> str:
        """Its help, in a line."""
        assert self.act.__doc__ is not None
        return self.act.__doc__.splitlines()[0]

    @property
    def typed(self) -> str:
        """How it is called: ``%sandbox NAME``, or ``%%sandbox NAME`` where it needs a cell."""
        return f"{'%%' if self.cell is Cell.MUST else '%'}sandbox {self.name}"


class _Parser(Parser):
    """Takes no value of a variable for an option."""

    def _parse_optional(self, arg_string: str) -> Any:
        return None if isinstance(arg_string, Filled) else super()._parse_optional(arg_string)


def parser_of(verbs: Iterable[Verb]) -> tuple[Parser, Any]:
    """The parser, and what takes further sub-commands."""
    parser = _Parser(prog="%sandbox", usage="%(prog)s COMMAND [OPTION]...", add_help=False)
    commands = parser.add_subparsers(prog=parser.prog, required=True, metavar="COMMAND", dest="verb")
    for verb in verbs:
        sub = commands.add_parser(
            verb.name,
            prog=verb.typed,
            description=inspect.getdoc(verb.act),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            help=verb.summary.replace("%", "%%"),
        )
        verb.arguments(sub)
        if verb.named:
            complete(sub.add_argument("--name", metavar="NAME", help="which sandbox"), COMPLETE_NAME)
    return parser, commands


def sub_commands(parser: Parser) -> dict[str, Parser]:
    """The sub-commands of a parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def add_debug(parser: Parser) -> None:
    """Add ``--debug`` to a command, or to those it consists of."""
    parts = sub_commands(parser).values()
    for part in parts:
        add_debug(part)
    if not parts:
        parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")


def complete(action: argparse.Action, kind: str) -> None:
    """Say what kind of word ``action`` takes."""
    action.complete = kind  # type: ignore[attr-defined]


def variable(text: str) -> str:
    """The type of an argument that names a variable."""
    if not text.isidentifier() or keyword.iskeyword(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no variable name")
    return text
