"""``%sandbox start``, ``stop``, ``restart``, ``status``, ``list`` and ``use``."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sandbox_nb import config, grammar
from sandbox_nb.blocking import Sandbox
from sandbox_nb.errors import InvalidArgument
from sandbox_nb.grammar import Parser
from sandbox_nb.life import State
from sandbox_nb.notebook.magics.session import UNDER_WAY, Session, open_forward
from sandbox_nb.notebook.magics.verbs import COMPLETE_NAME, Verb, complete
from sandbox_nb.notebook.progress import ProgressLine, started_line
from sandbox_nb.options import Options

if TYPE_CHECKING:
    from sandbox_nb.notebook.dashboard import Dashboard


_NONE = "there is no sandbox; %sandbox start makes one"


def start(session: Session, arguments: argparse.Namespace) -> None:
    """Start a machine; one that runs already is left alone, reused or replaced, as told.

    Such as:
      %sandbox start
      %sandbox start --cpu 2 --memory 512 --share src=.,ro
      %sandbox start --name web --config web.toml --network user
    """
    name = session.current if arguments.name is None else arguments.name
    options = grammar.machine_options(arguments, session.defaults())
    known = session.sandboxes.get(name)
    if known is not None and known.state in UNDER_WAY and not arguments.replace:
        hint = "" if arguments.reuse else "; --reuse says that this is meant, --replace starts afresh"
        print(f"{name}: is {known.state.value} already{hint}")
        return
    # Made first: a name that cannot be one must not cost the machine that is there.
    sandbox = Sandbox(name)
    if known is not None:
        known.close()
        session.forget(name)
    _start(session, name, sandbox, options, arguments.forwards)
    session.sandboxes[name] = sandbox


def stop(session: Session, arguments: argparse.Namespace) -> None:
    """Stop a machine, or all of this notebook."""
    names = list(session.sandboxes) if arguments.all else [session.name(arguments.name)]
    with contextlib.ExitStack() as stops:  # one that will not stop keeps no other up
        for name in reversed(names):
            stops.callback(_stop, session, name)


def restart(session: Session, arguments: argparse.Namespace) -> None:
    """Stop a machine and start it again with the same options, and the same ports forwarded."""
    name = session.name(arguments.name)
    sandbox = session.find(arguments.name)
    running = sandbox.state is State.RUNNING
    known = session.forwards.get(name, {}).items()
    # Those of a machine that has ended are all closed; of one that runs, those that ended with one before it.
    forwards = [(port, one.target) for port, one in known if not (running and one.closed)]
    sandbox.close()
    _start(session, name, sandbox, sandbox.options, forwards)


def status(session: Session, arguments: argparse.Namespace) -> Dashboard | None:
    """Say how a machine came up, what it is made of and where its logs are, or show its dashboard (--live)."""
    if arguments.name is None and not session.sandboxes:
        print(_NONE)
        return None
    sandbox = session.find(arguments.name)
    if arguments.live:
        from sandbox_nb.notebook.dashboard import Dashboard

        return Dashboard(sandbox)
    if sandbox.state is not State.RUNNING:
        failure = sandbox.asynchronous.failure
        print(f"{sandbox.name}: {sandbox.state.value}{f'; {failure}' if failure else ''}")
        return None
    print(started_line(sandbox))
    print(f"  options: {_options(sandbox.options)}")
    print(f"  logs: {sandbox.state_dir}")
    return None


def _options(options: Options) -> str:
    """Options as they are typed, or as Python where no line can say them."""
    try:
        return grammar.line(grammar.machine_words(options)) or "none said"
    except InvalidArgument:
        return config.to_python(options)


def list_(session: Session, arguments: argparse.Namespace) -> None:
    """List the machines of this notebook; the current one has a star."""
    if not session.sandboxes:
        print(_NONE)
        return
    current = session.name(None)
    rows = [("", "NAME", "STATE", "START", "CPU", "MEMORY", "IMAGE")]
    for name, sandbox in session.sandboxes.items():
        options = sandbox.options
        kind = sandbox.boot.kind if sandbox.state is State.RUNNING else ""
        size = (str(options.cpu_count), f"{options.memory_mib} MiB", options.image)
        rows.append(("*" if name == current else "", name, sandbox.state.value, kind, *size))
    print(table(rows))


def use(session: Session, arguments: argparse.Namespace) -> None:
    """Make a machine the one that is meant when no --name says another.

    NAME is that of a machine, or of a Python variable that holds a Sandbox or an AsyncSandbox.
    """
    sandbox = session.use(arguments.sandbox)
    print(f"{arguments.sandbox}: is the current sandbox, {sandbox.state.value}")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words as lines with columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _stop(session: Session, name: str) -> None:
    session.stop(name)
    print(f"{name}: stopped")


def _start(
    session: Session, name: str, sandbox: Sandbox, options: Options, forwards: Sequence[tuple[int, int | str]]
) -> None:
    """Start a machine with its ports forwarded, or leave nothing."""
    progress = ProgressLine()
    sandbox.start(options, progress=progress)
    try:
        made = [open_forward(sandbox, host_port, guest) for host_port, guest in forwards]
    except BaseException:
        sandbox.stop()
        raise
    session.forwards[name] = dict(made)
    progress.finish(started_line(sandbox))


def _start_arguments(parser: Parser) -> None:
    parser.usage = "%(prog)s [OPTION]..."
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--reuse", action="store_true", help="keep a machine that runs already, and say no more")
    choice.add_argument("--replace", action="store_true", help="stop a machine that runs already, start afresh")
    grammar.add_machine_options(parser)
    grammar.add_forwards(parser)


def _status_arguments(parser: Parser) -> None:
    parser.add_argument("--live", action="store_true", help="show it as it goes: load, processes, connections")


def _stop_arguments(parser: Parser) -> None:
    parser.add_argument("--all", action="store_true", help="stop every machine of this notebook")


def _use_arguments(parser: Parser) -> None:
    complete(parser.add_argument("sandbox", metavar="NAME", help="a machine, or a variable"), COMPLETE_NAME)


VERBS = (
    Verb("start", start, _start_arguments),
    Verb("stop", stop, _stop_arguments),
    Verb("restart", restart),
    Verb("status", status, _status_arguments),
    Verb("list", list_, named=False),
    Verb("use", use, _use_arguments, named=False),
)
