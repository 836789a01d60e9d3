"""``sandbox-nb``: look whether machines can run here, build images and templates, run a command, measure."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from sandbox_nb import __version__, grammar, tools
from sandbox_nb.errors import DeadlineExceeded, SandboxError
from sandbox_nb.grammar import Parser

if TYPE_CHECKING:
    from sandbox_nb.popen import Process

COPY_SIZE = 256 * 1024

EXIT_USAGE = 2
EXIT_TIMEOUT = 124
"""As timeout(1)."""
EXIT_FAILED = 125
"""The sandbox failed, not the command in it; as ``docker run``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status. Where nothing is said, it says what there is."""
    words = sys.argv[1:] if argv is None else argv
    try:
        arguments = _parser().parse_args(words or ["--help"])
        act: Callable[[argparse.Namespace], int] = arguments.act
        return act(arguments)
    except grammar.UsageError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except SandboxError as error:
        print(f"sandbox-nb: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read us has enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _parser() -> Parser:
    parser = Parser(
        prog="sandbox-nb", description="A real Linux machine in a notebook cell, and on the command line."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run", usage="%(prog)s [OPTION]... CMD [ARG]...", help="start a machine, run a command in it, stop it"
    )
    grammar.add_machine_options(run)
    grammar.add_forwards(run)
    grammar.add_command_options(run)
    grammar.add_command(run)
    run.set_defaults(act=_run)

    tools.add_commands(commands, ShowProgress)

    bench = commands.add_parser("bench", help="measure this machine")
    bench.add_argument("rows", nargs="*", metavar="ROW", help="row or section; everything when not said")
    bench.add_argument(
        "--peers", action="store_true", help="measure quicksand and libguestfs too, where installed"
    )
    bench.add_argument("--json", action="store_true", help="as JSON")
    bench.add_argument(
        "--results", type=Path, metavar="FOLDER", help="write a page and a plot of it into this folder, too"
    )
    bench.set_defaults(act=_bench)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from sandbox_nb.blocking import Sandbox

    words = grammar.command_words(arguments)
    if not words:
        raise grammar.UsageError("sandbox-nb run: CMD is needed, the command to run")
    options, command = grammar.machine_options(arguments), grammar.command_options(arguments)
    timeout = command.pop("timeout")
    with Sandbox() as sandbox:
        sandbox.start(options, progress=ShowProgress())
        for host_port, guest in arguments.forwards:
            sandbox.forward(host_port, guest)
        with sandbox.popen(words, **command) as process:
            return _relay(process, timeout)


def _relay(process: Process, timeout: float | None) -> int:
    """Carry our standard streams to the guest's process and back; return its exit status as a shell would."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    # Daemons: a terminal we read from does not end when the process does.
    threading.Thread(target=_copy_input, args=(process.stdin,), daemon=True).start()
    broken: list[OSError] = []
    outputs = [
        threading.Thread(target=_copy_output, args=(source, _binary(sink), process, broken), daemon=True)
        for source, sink in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
    ]
    for thread in outputs:
        thread.start()
    try:
        status = process.wait(timeout)
    except DeadlineExceeded as error:
        print(f"sandbox-nb: {error}", file=sys.stderr)
        return EXIT_TIMEOUT
    for thread in outputs:
        thread.join()
    if broken:
        print(f"sandbox-nb: the output could not be written: {broken[0].strerror}", file=sys.stderr)
        return EXIT_FAILED
    return status if status >= 0 else 128 - status


def _binary(stream: TextIO | None) -> BinaryIO:
    """The bytes beneath a standard stream; what goes to a closed one goes nowhere."""
    return stream.buffer if stream is not None else open(os.devnull, "wb")  # noqa: PTH123 - until exit


def _copy_input(sink: BinaryIO) -> None:
    # The process may close its input, or end, before ours does.
    with sink, contextlib.suppress(OSError, ValueError):
        while sys.stdin is not None and (data := os.read(sys.stdin.fileno(), COPY_SIZE)):
            sink.write(data)


def _copy_output(source: BinaryIO, sink: BinaryIO, process: Process, broken: list[OSError]) -> None:
    try:
        while data := source.read1(COPY_SIZE):  # type: ignore[attr-defined]
            sink.write(data)
            sink.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            broken.append(error)
        # Nobody takes more, so the guest's process gets what one in a pipeline of the host would.
        with contextlib.suppress(SandboxError):
            process.send_signal(signal.SIGPIPE)


class ShowProgress:
    """Shows how far an image is, on standard error: on one line where that is a terminal, else a line a stage."""

    def __init__(self) -> None:
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show ``stage`` and the share done."""
        if sys.stderr.isatty():
            share = f" {100 * done // total:3d} %" if total else ""
            print(f"\r\033[K{stage}{share}", end="\n" if 0 < total <= done else "", file=sys.stderr, flush=True)
        elif stage != self._stage:
            print(f"{stage} …", file=sys.stderr, flush=True)
        self._stage = stage

    def finish(self, text: str) -> None:
        """Print ``text``, on standard output."""
        print(text)


def _bench(arguments: argparse.Namespace) -> int:
    from sandbox_nb import bench

    report = bench.measure(arguments.rows, peers=arguments.peers, tell=lambda line: print(line, file=sys.stderr))
    print(json.dumps(report.as_json(), indent=2) if arguments.json else report.as_text())
    if arguments.results is not None:
        report.write(arguments.results)
    return 1 if report.failed else 0
