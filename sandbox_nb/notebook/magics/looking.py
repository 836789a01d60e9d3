"""``%sandbox terminal``, ``console``, ``timeline`` and ``events``: what goes on in a machine."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import time
from typing import TYPE_CHECKING

from sandbox_nb.blocking import Sandbox
from sandbox_nb.boot import Boot
from sandbox_nb.events import AsyncEvents, Event, ProcessExited, ProcessStarted
from sandbox_nb.grammar import Parser
from sandbox_nb.notebook.magics.session import Session
from sandbox_nb.notebook.magics.verbs import Verb

if TYPE_CHECKING:
    from sandbox_nb.notebook.terminal import Terminal


def terminal(session: Session, arguments: argparse.Namespace) -> Terminal:
    """Show a terminal: a login shell in the guest, a command, a stream, or the console."""
    from sandbox_nb.notebook.guest_terminal import open_terminal

    look = {name: getattr(arguments, name) for name in ("height", "readonly")}
    options = {"stream": arguments.stream, "console": arguments.console, "user": arguments.user}
    return open_terminal(session.find(arguments.name), arguments.command or None, **options, **look)


def console(session: Session, arguments: argparse.Namespace) -> None:
    """Print the last lines of the guest's serial console."""
    sandbox = session.find(arguments.name)
    lines = sandbox.console.splitlines()[-arguments.lines :]
    print("\n".join(lines) or f"{sandbox.name}: nothing has been written on its console")


def timeline(session: Session, arguments: argparse.Namespace) -> Boot:
    """Show the phases of a machine's start as a picture."""
    return session.find(arguments.name).boot


def events(session: Session, arguments: argparse.Namespace) -> None:
    """Print what happens to processes of the guest from now on, until it is interrupted."""
    sandbox = session.find(arguments.name)
    ends = None if arguments.timeout is None else time.monotonic() + arguments.timeout
    found = sandbox.runner.wait(_subscribe(sandbox))
    try:
        for _ in range(arguments.count) if arguments.count else iter(int, 1):
            left = None if ends is None else max(0.0, ends - time.monotonic())
            print(_line(sandbox.runner.wait(asyncio.wait_for(anext(found), left))), flush=True)
    except (StopAsyncIteration, TimeoutError):
        return
    finally:
        sandbox.runner.wait(found.__aexit__())


async def _subscribe(sandbox: Sandbox) -> AsyncEvents:
    return sandbox.asynchronous.events()


def _line(event: Event) -> str:
    match event:
        case ProcessStarted():
            what = f"started, pid {event.pid}"
        case ProcessExited(returncode=status):
            what = f"exited with status {status}" if status >= 0 else f"ended by signal {-status}"
        case _:
            what = "ended for want of memory"
    return f"{event.time:%H:%M:%S.%f} {event.id} {what}"


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}; quotes come in pairs") from None


def _terminal_arguments(parser: Parser) -> None:
    parser.add_argument("--command", type=_words, metavar="CMD", help="what to run instead of a login shell")
    parser.add_argument("--stream", metavar="ID", help="show the stream of this id")
    parser.add_argument("--console", action="store_true", help="show the serial console")
    parser.add_argument("--user", default="", metavar="USER", help="user of the guest to run as")
    parser.add_argument("--height", type=int, default=24, metavar="ROWS", help="rows (default: 24)")
    parser.add_argument("--readonly", action="store_true", help="show, and take no keys")


def _console_arguments(parser: Parser) -> None:
    parser.add_argument("--lines", type=int, default=40, metavar="N", help="how many (default: 40)")


def _events_arguments(parser: Parser) -> None:
    parser.add_argument("--count", type=int, default=0, metavar="N", help="end after as many")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="end after this time")


VERBS = (
    Verb("terminal", terminal, _terminal_arguments),
    Verb("console", console, _console_arguments),
    Verb("timeline", timeline),
    Verb("events", events, _events_arguments),
)
