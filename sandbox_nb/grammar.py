"""The words of the command line and of the magics, written once.

Flags that describe a machine are made from the fields of ``Options``; ``sandbox-nb`` and ``%sandbox`` put them
into their sub-commands, so name, default and help text cannot drift apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from sandbox_nb.errors import InvalidArgument
from sandbox_nb.options import Options

_INTEGERS = {"cpu", "memory", "standby"}


class UsageError(InvalidArgument):
    """What was typed is not in the grammar."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError instead of leaving the process, and guesses what was meant."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        keywords.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        keywords.setdefault("allow_abbrev", False)
        super().__init__(*args, **keywords)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found, as one line."""
        raise UsageError(f"{self.prog}: {message}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Say what can be chosen, with the nearest first; argparse lists without guessing."""
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            guess = did_you_mean(str(value), known)
            raise argparse.ArgumentError(action, f"{value!r} is none of {', '.join(known)}{guess}")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, and name the first argument that is none of ours, with the nearest that is."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unknown argument {unknown[0]}{did_you_mean(unknown[0], self._option_string_actions)}")
        return found, unknown


def did_you_mean(word: str, known: Sequence[str] | dict[str, Any]) -> str:
    """A suggestion to put behind an error message, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every option of a machine that can be said in one word."""
    group = parser.add_argument_group("machine")
    for option in dataclasses.fields(Options):
        if "help" not in option.metadata:
            continue
        flags = [f"--{option.name.replace('_', '-')}"]
        if option.metadata["alias"]:
            flags.append(f"--{option.metadata['alias']}")
        keywords: dict[str, Any] = {
            "dest": option.name,
            "help": option.metadata["help"],
            "default": option.default,
        }
        if option.metadata["choices"]:
            keywords["choices"] = option.metadata["choices"]
        else:
            keywords["metavar"] = option.metadata["metavar"]
        if option.name in _INTEGERS:
            keywords["type"] = int
        group.add_argument(*flags, **keywords)
    group.add_argument(
        "--init-arg", dest="init_args", action="append", default=[], metavar="ARG", help="argument for the agent"
    )


def machine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keywords for ``Sandbox.start`` that the flags said."""
    names = [option.name for option in dataclasses.fields(Options) if hasattr(arguments, option.name)]
    return {name: getattr(arguments, name) for name in names}


def add_command_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how a command runs in the guest."""
    group = parser.add_argument_group("command")
    group.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="set a variable; may be repeated"
    )
    group.add_argument("--cwd", default="", metavar="DIR", help="folder of the guest to run in")
    group.add_argument(
        "--user", default="", metavar="USER", help="user of the guest to run as; root when not said"
    )
    group.add_argument("--timeout", type=float, metavar="SECONDS", help="kill the command when it takes longer")


def command_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keywords for ``Sandbox.run`` that the flags said. Raises UsageError for --env without a value."""
    env = {}
    for pair in arguments.env:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise UsageError(f"--env {pair}: NAME=VALUE is needed")
        env[name] = value
    return {"env": env, "cwd": arguments.cwd, "user": arguments.user, "timeout": arguments.timeout}
