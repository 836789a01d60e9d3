"""``sandbox-nb``: look whether machines can run here, build images and templates, run a command, measure."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, TextIO

from sandbox_nb import __version__, grammar
from sandbox_nb.errors import DeadlineExceeded, FailedPrecondition, NotFound, SandboxError
from sandbox_nb.grammar import Parser

if TYPE_CHECKING:
    from sandbox_nb.blocking import Process

COPY_SIZE = 256 * 1024

EXIT_USAGE = 2
EXIT_TIMEOUT = 124
"""As timeout(1)."""
EXIT_FAILED = 125
"""The sandbox failed, not the command in it; as ``docker run``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    try:
        arguments = _parser().parse_args(argv)
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

    run = commands.add_parser("run", help="start a machine, run a command in it, stop it")
    run.add_argument("command", nargs="+", metavar="CMD", help="the command; write -- before it")
    grammar.add_machine_options(run)
    grammar.add_command_options(run)
    run.set_defaults(act=_run)

    doctor = commands.add_parser("doctor", help="say what is there, what is missing, and how to get it")
    doctor.add_argument("--json", action="store_true", help="as JSON")
    doctor.set_defaults(act=_doctor)

    _add_image_commands(commands.add_parser("image", help="guest images: build, list, remove"))

    _add_template_commands(commands.add_parser("template", help="saved machines: make, list, remove"))

    bench = commands.add_parser("bench", help="measure this machine")
    bench.add_argument("rows", nargs="*", metavar="ROW", help="what to measure; everything when not said")
    bench.add_argument(
        "--peers", action="store_true", help="measure quicksand and libguestfs too, where installed"
    )
    bench.add_argument("--json", action="store_true", help="as JSON")
    bench.set_defaults(act=_bench)
    return parser


def _add_image_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build an image")
    build.add_argument("image", nargs="?", default="base", metavar="NAME", help="base or python")
    build.add_argument("--arch", default=platform.machine(), metavar="ARCH", help="x86_64 or aarch64")
    for flag, what in (("kernel", "FILE"), ("modules", "DIR"), ("busybox", "FILE"), ("rootfs", "PATH")):
        build.add_argument(f"--{flag}", metavar=what, help=f"{flag} to use instead of the packages'")
    build.set_defaults(act=_image_build)
    show = commands.add_parser("list", help="list the images built")
    show.set_defaults(act=_image_list)
    remove = commands.add_parser("rm", help="remove an image")
    remove.add_argument("image", metavar="NAME")
    remove.set_defaults(act=_image_remove)


def _add_template_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="save a machine with these options, when there is none yet")
    grammar.add_machine_options(build)
    build.set_defaults(act=_template_build)
    show = commands.add_parser("list", help="list the saved machines, most recently used first")
    show.set_defaults(act=_template_list)
    remove = commands.add_parser("rm", help="remove saved machines; running ones go on")
    remove.add_argument("keys", nargs="+", metavar="KEY", help="the first letters of a key, or all")
    remove.set_defaults(act=_template_remove)


def _run(arguments: argparse.Namespace) -> int:
    from sandbox_nb.blocking import Sandbox

    command = grammar.command_options(arguments)
    timeout = command.pop("timeout")
    with Sandbox() as sandbox:
        sandbox.start(progress=ShowProgress(), **grammar.machine_options(arguments))
        with sandbox.popen(arguments.command, **command) as process:
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


def _doctor(arguments: argparse.Namespace) -> int:
    from sandbox_nb import doctor

    findings = doctor.examine()
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.status:4}  {finding.subject}: {finding.detail}")
            if finding.remedy:
                print(f"      → {finding.remedy}")
    return int(any(finding.status == "bad" for finding in findings))


def _image_build(arguments: argparse.Namespace) -> int:
    from sandbox_nb import binaries
    from sandbox_nb.guest import image

    parts = {name: getattr(arguments, name) for name in ("kernel", "modules", "busybox", "rootfs")}
    arch = arguments.arch
    built = image.build(arguments.image, arch=arch, agent=binaries.agent(arch), progress=ShowProgress(), **parts)
    print(built.folder)
    return 0


def _image_list(arguments: argparse.Namespace) -> int:
    from sandbox_nb.guest import image

    for found in image.list_images():
        print(f"{found.name:10} {found.arch:8} {found.release:24} {found.digest[:12]} {found.folder}")
    return 0


def _image_remove(arguments: argparse.Namespace) -> int:
    from sandbox_nb.guest import image

    for folder in image.remove(arguments.image):
        print(folder)
    return 0


def _template_build(arguments: argparse.Namespace) -> int:
    from sandbox_nb.blocking import Sandbox

    if arguments.warm == "off":
        raise grammar.UsageError("template build --warm off: that is a start that makes no template")
    with Sandbox() as sandbox:
        sandbox.start(progress=ShowProgress(), **grammar.machine_options(arguments))
        boot = sandbox.boot
    if not boot.template:
        raise FailedPrecondition(boot.note or "another process is making this template right now")
    print(boot.template)
    return 0


def _template_list(arguments: argparse.Namespace) -> int:
    from sandbox_nb import host
    from sandbox_nb.vm import template

    for found in template.list_templates(host.templates_dir()):
        # The cache is also that of other versions, whose records may say other things.
        machine = " ".join(f"{name}={value}" for name, value in found.about.get("machine", {}).items())
        used = datetime.fromtimestamp(found.used).isoformat(" ", "minutes")
        print(f"{found.folder.name} {found.disk_usage() >> 20:5} MiB, used {used}  {machine}")
    return 0


def _template_remove(arguments: argparse.Namespace) -> int:
    from sandbox_nb import host
    from sandbox_nb.vm import template

    found = template.list_templates(host.templates_dir())
    for key in arguments.keys:
        chosen = [one for one in found if key == "all" or one.folder.name.startswith(key)]
        if not chosen and key != "all":
            raise NotFound(f"no template's key starts with {key}; see: sandbox-nb template list")
        for one in chosen:
            template.remove(one)
            print(one.folder.name)
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from sandbox_nb import bench

    report = bench.measure(arguments.rows, peers=arguments.peers, tell=lambda line: print(line, file=sys.stderr))
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        print(bench.table(report))
    return 0
