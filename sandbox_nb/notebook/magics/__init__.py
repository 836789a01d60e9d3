"""``%sandbox`` and ``%%sandbox``: they parse, call the API, and say in a line what happened.

Each group of sub-commands is a module with its ``VERBS``; what they share is in ``session`` (the sandboxes, by
name), ``words`` (a line as words), ``verbs`` (words as arguments) and ``results``.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import traitlets
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets.config import Configurable

from sandbox_nb import grammar, tools
from sandbox_nb.errors import NotFound, SandboxError
from sandbox_nb.grammar import UsageError
from sandbox_nb.notebook.magics import calling, commands, configuring, lifecycle, looking, plugging, tracing, words
from sandbox_nb.notebook.magics.completion import Completer, matcher_of
from sandbox_nb.notebook.magics.overview import overview
from sandbox_nb.notebook.magics.session import Session
from sandbox_nb.notebook.magics.verbs import COMPLETE_VERB, Cell, Verb, add_debug, complete, parser_of
from sandbox_nb.notebook.progress import ProgressLine
from sandbox_nb.options import DEFAULT_CPU, DEFAULT_MEMORY, Options
from sandbox_nb.suggest import did_you_mean

__all__ = ["SandboxMagics", "load", "unload"]

GROUPS: dict[str, tuple[Verb, ...]] = {
    "a machine": (*lifecycle.VERBS, *configuring.VERBS),
    "in it": (*commands.VERBS, *calling.VERBS),
    "between it and the host": plugging.VERBS,
    "watch": (*looking.VERBS, *tracing.VERBS),
}

_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


def _trait(option: dataclasses.Field[Any]) -> traitlets.TraitType[Any, Any]:
    """An option of a machine as a setting of the magics. None: as if it were not said."""
    text = option.metadata["help"]
    if option.metadata["choices"]:
        return traitlets.Enum(option.metadata["choices"], allow_none=True, default_value=None, help=text)
    kinds = {int: traitlets.Int, float: traitlets.Float, str: traitlets.Unicode}
    trait: traitlets.TraitType[Any, Any] = kinds[grammar.plain_type(option.name)](None, allow_none=True, help=text)
    return trait


_PLAIN_OPTIONS = {option.name: option for option in dataclasses.fields(Options) if "help" in option.metadata}

_Settings = type(
    "_Settings",
    (Configurable,),
    {
        "__doc__": "A setting for every option of a machine that is one word.",
        **{name: _trait(option).tag(config=True) for name, option in _PLAIN_OPTIONS.items()},
    },
)


@magics_class
class SandboxMagics(Magics, _Settings):  # type: ignore[misc, valid-type]
    """The magics of one IPython session. Settings are what machines have when a line does not say otherwise."""

    shell: InteractiveShell

    debug = traitlets.Bool(False, help="show the whole traceback of every error").tag(config=True)

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell, parent=shell)
        self.session = Session(shell, self._defaults)
        help_verb = Verb("help", self._help, _help_arguments, named=False)
        self._groups = {**GROUPS, "help": (help_verb,)}
        self._verbs = {verb.name: verb for verbs in self._groups.values() for verb in verbs}
        self._parser, self._commands = parser_of(self._verbs.values())
        tools.add_commands(self._commands, ProgressLine)
        add_debug(self._parser)
        self.matcher = matcher_of(Completer(self.session, self._parser))

    @no_var_expand
    @line_cell_magic
    def sandbox(self, line: str, cell: str | None = None) -> Any:
        """Start, use and stop virtual machines; %sandbox help says more."""
        debug = self.debug
        try:
            arguments = self._parsed(line, cell)
            debug |= arguments.debug
            return self._act(arguments)
        except SystemExit:  # --help was answered
            return None
        except (SandboxError, KeyboardInterrupt) as error:
            if not debug:
                _show_as_one_line(error)
            raise

    def _parsed(self, line: str, cell: str | None) -> argparse.Namespace:
        name = line.split(maxsplit=1)[0] if line.strip() else "help"
        if name in ("-h", "--help"):
            line = name = "help"
        verb = self._verbs.get(name)
        split = words.split_json if verb is not None and verb.json else words.split
        arguments = self._parser.parse_args(split(line, self.shell.user_ns) or [name])
        takes = Cell.NEVER if verb is None else verb.cell
        if cell is not None and takes is Cell.NEVER:
            raise UsageError(f"%%sandbox {name} takes no cell; write %sandbox {name}")
        if cell is None and takes is Cell.MUST:
            raise UsageError(f"%sandbox {name} takes a cell; write %%sandbox {name}, and below it the text")
        arguments.cell = cell
        return arguments

    def _act(self, arguments: argparse.Namespace) -> Any:
        verb = self._verbs.get(arguments.verb)
        if verb is None:
            arguments.act(arguments)
            return None
        return verb.act(self.session, arguments)

    def _help(self, session: Session, arguments: argparse.Namespace) -> None:
        """Say what there is, or all about one command."""
        if arguments.command is None:
            print(overview(self._groups))
            return
        parsers = self._commands.choices
        if arguments.command not in parsers:
            guess = did_you_mean(arguments.command, parsers)
            raise NotFound(f"there is no %sandbox {arguments.command}; %sandbox help lists what there is{guess}")
        print(parsers[arguments.command].format_help().rstrip())

    def _defaults(self) -> Options:
        """The options that the settings say. One of cpu and memory alone gets the other at its default."""
        said = {name: getattr(self, name) for name in _PLAIN_OPTIONS if getattr(self, name) is not None}
        if "cpu" in said or "memory" in said:
            said = {"cpu": DEFAULT_CPU, "memory": DEFAULT_MEMORY, **said}
        return Options().applying((), said)


def load(shell: InteractiveShell) -> None:
    """Register the magics with ``shell``, their completion, and ``%sandbox COMMAND?``."""
    magics = SandboxMagics(shell)
    shell.register_magics(magics)
    shell.Completer.custom_matchers.append(magics.matcher)
    shell.input_transformers_cleanup.append(_asked)


def unload(shell: InteractiveShell) -> None:
    """Stop the machines and take the magics away."""
    magics = shell.magics_manager.registry.pop(SandboxMagics.__name__, None)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("sandbox", None)
    if magics is not None:
        shell.configurables.remove(magics)
        shell.Completer.custom_matchers.remove(magics.matcher)
        shell.input_transformers_cleanup.remove(_asked)
        magics.session.close()  # last: a machine may not stop


def _help_arguments(parser: argparse.ArgumentParser) -> None:
    action = parser.add_argument("command", nargs="?", metavar="COMMAND", help="which; all when not said")
    complete(action, COMPLETE_VERB)


def _asked(lines: list[str]) -> list[str]:
    """``%sandbox COMMAND?`` as ``%sandbox help COMMAND``: IPython would look for an object of that name."""
    said = "".join(lines).strip()
    question = said.rstrip("?")
    parts = question.split()
    if said != question and len(lines) == 1 and len(parts) == 2 and parts[0] in ("%sandbox", "%%sandbox"):
        return [f"%sandbox help {parts[1]}\n"]
    return lines


def _show_as_one_line(error: SandboxError | KeyboardInterrupt) -> None:
    """Let IPython show the message where it would show a traceback, which leads into our code, not the user's."""

    def render() -> list[str]:
        said = str(error) or "interrupted"
        return [f"{_RED}{type(error).__name__}: {said}{_PLAIN}"]

    error._render_traceback_ = render  # type: ignore[union-attr]
    # IPython shows an error that an exception group led to as a bare traceback, whatever the error says.
    error.__context__ = None
