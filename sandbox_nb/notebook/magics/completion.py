"""Completion of ``%sandbox`` lines, for IPython and, through the kernel, for every page.

A matcher of IPython's completer (its API version 2). It walks the line through the parsers, so it knows what the
grammar knows; what needs the guest is given a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import glob
import itertools
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)

from sandbox_nb import grammar
from sandbox_nb.errors import SandboxError
from sandbox_nb.grammar import Parser
from sandbox_nb.life import State
from sandbox_nb.notebook.magics import calling
from sandbox_nb.notebook.magics.session import Session
from sandbox_nb.notebook.magics.verbs import (
    COMPLETE_ATTACHED,
    COMPLETE_GUEST_PATH,
    COMPLETE_METHOD,
    COMPLETE_NAME,
    COMPLETE_PLACE,
    COMPLETE_VARIABLE,
    COMPLETE_VERB,
    sub_commands,
)

GUEST_TIMEOUT = 1.0
"""Seconds the guest gets to list a folder."""

_LINE = re.compile(r"\s*%{1,2}sandbox\s")

Source = Callable[[str, argparse.Namespace], Iterable[str]]


class Completer:
    """Completes the words of ``%sandbox`` for a session."""

    def __init__(self, session: Session, parser: Parser) -> None:
        self._session = session
        self._parser = parser
        self._sources: dict[str, Source] = {
            COMPLETE_VERB: lambda _, __: sub_commands(parser),
            COMPLETE_NAME: lambda _, __: {**session.sandboxes, **dict.fromkeys(session.holders())},
            COMPLETE_VARIABLE: lambda _, __: session.variables(),
            COMPLETE_METHOD: lambda _, __: calling.methods(),
            grammar.COMPLETE_HOST_PATH: lambda word, __: _host_paths(word),
            COMPLETE_GUEST_PATH: self._guest_paths,
            COMPLETE_PLACE: self._places,
            COMPLETE_ATTACHED: self._attached,
        }

    def words(self, text: str) -> list[str]:
        """What the last word of ``text``, a line up to the cursor, may become."""
        *before, word = re.split(r"\s+", text.lstrip())[1:]
        arguments = argparse.Namespace(name=_said_name(before))
        reached = _walk(self._parser, before)
        found: Iterable[str]
        if reached.pending is not None:
            found = self._values(reached.pending, word, arguments)
        elif reached.flags and word.startswith("-"):
            found = self._flags(reached.parser, word, arguments)
        elif choices := sub_commands(reached.parser):
            found = choices
        else:
            action = _positional(reached.parser, reached.positionals)
            found = [] if action is None else self._values(action, word, arguments)
        return sorted(one for one in found if one.startswith(word))

    def _flags(self, parser: Parser, word: str, arguments: argparse.Namespace) -> Iterable[str]:
        flag, equals, value = word.partition("=")
        if equals and (action := _takes_value(parser, flag)) is not None:
            return [f"{flag}={one}" for one in self._values(action, value, arguments)]
        return [option for option in parser._option_string_actions if option.startswith("--")]

    def _values(self, action: argparse.Action, word: str, arguments: argparse.Namespace) -> Iterable[str]:
        if action.choices is not None:
            return map(str, action.choices)
        source = self._sources.get(getattr(action, "complete", ""))
        return [] if source is None else source(word, arguments)

    def _guest_paths(self, word: str, arguments: argparse.Namespace) -> Iterable[str]:
        folder = word[: word.rfind("/") + 1]
        with contextlib.suppress(SandboxError, TimeoutError):
            sandbox = self._session.find(arguments.name)
            if folder and sandbox.state is State.RUNNING:
                listing = sandbox.asynchronous.listdir(folder)
                found = sandbox.runner.wait(asyncio.wait_for(listing, GUEST_TIMEOUT))
                return [f"{folder}{one.name}/" if one.is_dir() else f"{folder}{one.name}" for one in found]
        return []

    def _places(self, word: str, arguments: argparse.Namespace) -> Iterable[str]:
        name, colon, path = word.partition(":")
        if not colon:
            return [*_host_paths(word), *(f"{one}:" for one in self._session.sandboxes)]
        return [f"{name}:{one}" for one in self._guest_paths(path, argparse.Namespace(name=name or None))]

    def _attached(self, word: str, arguments: argparse.Namespace) -> Iterable[str]:
        with contextlib.suppress(SandboxError):
            return [device.name for device in self._session.find(arguments.name).devices()]
        return []


def matcher_of(completer: Completer) -> Any:
    """The matcher that IPython asks."""

    @context_matcher(identifier="sandbox_nb")  # type: ignore[untyped-decorator]
    def match(context: CompletionContext) -> SimpleMatcherResult:
        line = context.line_with_cursor[: context.cursor_position]
        if not _LINE.match(line):
            return {"completions": []}
        word = re.split(r"\s+", line)[-1]
        # Nothing that completes Python has anything to say of such a line; but only a matcher that has found
        # something may keep the others from speaking, so of what is not known the word itself is the completion.
        words = completer.words(line) or list(filter(None, [word]))
        found = [SimpleCompletion(text=text, type="magic") for text in words]
        return {"completions": found, "matched_fragment": word, "suppress": True, "ordered": True}

    return match


@dataclass
class _Reached:
    """How far the words before the cursor lead into the grammar."""

    parser: Parser
    positionals: int = 0
    pending: argparse.Action | None = None
    """The option that is still to get its value."""
    flags: bool = True
    """Whether there may be further options."""


def _walk(parser: Parser, words: Iterable[str]) -> _Reached:
    reached = _Reached(parser)
    for word in words:
        if reached.pending is not None:
            reached.pending = None
        elif word == "--":
            reached.flags = False
        elif reached.flags and word.startswith("-"):
            reached.pending = _takes_value(reached.parser, word)
        elif word in (choices := sub_commands(reached.parser)):
            reached = _Reached(choices[word])
        else:
            action = _positional(reached.parser, reached.positionals)
            reached.positionals += 1
            reached.flags &= action is None or action.nargs != argparse.REMAINDER
    return reached


def _positional(parser: Parser, number: int) -> argparse.Action | None:
    """What takes the word of this number that is no option."""
    for index, action in enumerate(one for one in parser._actions if not one.option_strings):
        if index == number or action.nargs == argparse.REMAINDER:
            return action
    return None


def _takes_value(parser: Parser, flag: str) -> argparse.Action | None:
    """The option that is still to get its value, when ``flag`` is one that takes one."""
    action = parser._option_string_actions.get(flag)
    return action if action is not None and action.nargs is None else None


def _said_name(words: list[str]) -> str | None:
    for word, following in itertools.zip_longest(words, words[1:]):
        flag, equals, value = word.partition("=")
        if flag == "--name":
            return value if equals else following
    return None


def _host_paths(word: str) -> list[str]:
    # Not pathlib, which would make ./a an a: what is typed stays.
    found = glob.glob(f"{glob.escape(word)}*")  # noqa: PTH207
    return [f"{path}/" if os.path.isdir(path) else path for path in found]  # noqa: PTH112
