"""Terminals of a machine: a program on a pty in the guest, a stream, or the serial console."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from sandbox_nb.blocking import Sandbox
from sandbox_nb.command import Command
from sandbox_nb.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from sandbox_nb.life import State
from sandbox_nb.notebook.terminal import Terminal
from sandbox_nb.notebook.terminal_source import ENDING, SocketSource, how_it_ended
from sandbox_nb.popen import Process

LOGIN_SHELL: Command = ["sh", "-l"]


def open_terminal(
    sandbox: Sandbox,
    command: Command | None = None,
    *,
    stream: str | None = None,
    console: bool = False,
    env: dict[str, str] | None = None,
    cwd: str = "",
    user: str = "",
    **look: Any,
) -> Terminal:
    """A terminal on ``command`` (a login shell when not said), on the stream of an id, or on the console.

    ``look`` goes to the widget: ``height``, ``font_size``, ``scrollback``, ``readonly``, ….

    Raises FailedPrecondition unless the machine runs, InvalidArgument for more than one of the three.
    """
    if sum((command is not None, stream is not None, console)) > 1:
        raise InvalidArgument("a terminal shows one thing: a command, a stream or the console")
    if sandbox.state is not State.RUNNING:
        raise FailedPrecondition(f"{sandbox.name} is {sandbox.state.value}; a terminal needs it running")
    if stream is not None:
        return Terminal(_of_stream(sandbox, stream), **look)
    if console:
        return Terminal(_of_console(sandbox), **look)
    return Terminal(_of_process(sandbox, command or LOGIN_SHELL, env=env, cwd=cwd, user=user), **look)


def _of_process(sandbox: Sandbox, command: Command, **keywords: Any) -> SocketSource:
    running: list[Process] = []

    def connect(rows: int, columns: int) -> socket.socket:
        process = sandbox.popen(command, tty=(rows, columns), **keywords)
        running.append(process)
        return process.terminal

    def resize(rows: int, columns: int) -> None:
        # A program that has just ended has no size; the reader finds the end.
        with contextlib.suppress(NotFound, Unavailable):
            running[0].resize(rows, columns)

    def ending() -> str:
        try:
            return how_it_ended(running[0].wait(timeout=ENDING))
        except DeadlineExceeded:
            return "closed by a program that runs on"
        except Unavailable as error:
            return _first_line(error)

    return SocketSource(connect, resize, ending)


def _of_stream(sandbox: Sandbox, identity: str) -> SocketSource:
    return SocketSource(
        lambda rows, columns: sandbox.start_stream(identity), _no_resize, lambda: _why_over(sandbox)
    )


def _of_console(sandbox: Sandbox) -> SocketSource:
    return SocketSource(lambda rows, columns: sandbox.attach_console(), _no_resize, lambda: _why_over(sandbox))


def _why_over(sandbox: Sandbox) -> str:
    """Why a stream is over: because of the machine, unless that still runs."""
    try:
        sandbox.info()
    except Unavailable as error:
        return _first_line(error)
    except FailedPrecondition:
        return f"{sandbox.name} has been stopped"
    return "closed by the other side"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _no_resize(rows: int, columns: int) -> None:
    """Neither a stream nor a serial line has a size."""
