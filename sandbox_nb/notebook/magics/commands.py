"""``%sandbox run`` and ``%%sandbox run``, ``python`` and ``write``: what a cell does in the guest."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import sys
from pathlib import Path
from typing import Any

from sandbox_nb import grammar
from sandbox_nb.blocking import Sandbox
from sandbox_nb.command import DEVNULL, PIPE, Command, describe
from sandbox_nb.encoding import guest_data
from sandbox_nb.errors import FailedPrecondition, InvalidArgument, ProcessFailed, ProcessTimedOut, SandboxError
from sandbox_nb.grammar import Parser, UsageError
from sandbox_nb.notebook.cell_output import CellOutput
from sandbox_nb.notebook.magics.results import CellResult, Job
from sandbox_nb.notebook.magics.session import Session
from sandbox_nb.notebook.magics.verbs import (
    COMPLETE_GUEST_PATH,
    COMPLETE_VARIABLE,
    Cell,
    Verb,
    complete,
    variable,
)
from sandbox_nb.options import Options
from sandbox_nb.process import KILL_TIMEOUT
from sandbox_nb.run import Output, communicate
from sandbox_nb.sandbox import AsyncSandbox

_GUEST_CELL = Path(__file__).with_name("guest_cell.py")

EXIT_NOT_FOUND = 127
"""Of a command that is not there, as a shell has it."""


def run(session: Session, arguments: argparse.Namespace) -> Job | None:
    """Run the cell, or the rest of the line, in the guest, showing its output as it comes.

    A cell is a script of the guest's shell. A line is one program and its arguments, with no shell: pipes and
    wildcards need a cell.

    Values of Python variables go in by {name} in the line, each as one word; the text of a cell stays as it is, so
    give it variables of its own: %%sandbox run --env N={count}. Long output is shown head and tail; all of it is
    in the result (--out) and in the file that the cell names.

    Such as:
      %sandbox run ls -l {folder}
      %%sandbox run --out r --timeout 60
      %%sandbox run --interpreter python3
      %%sandbox run --bg --out server
    """
    words = grammar.command_words(arguments)
    if (arguments.cell is None) == (not words):
        raise UsageError("%sandbox run CMD…, or %%sandbox run with the commands in the cell: one of the two")
    options = grammar.command_options(arguments)
    given = None if arguments.stdin is None else _text_or_bytes(session, arguments.stdin)
    sandbox = session.find(arguments.name)
    with contextlib.ExitStack() as undo:
        command: Command = words
        script = None
        if arguments.cell is not None:
            command, script = _script(sandbox, arguments.interpreter, arguments.cell, arguments.user)
            undo.callback(_remove, sandbox, script)
        if arguments.bg:
            job = _begin(session, sandbox, command, script, given, options)
            undo.pop_all()  # the interpreter may still be reading the script: it goes when the job ends
            if arguments.out is None:
                return job
            session.bind(arguments.out, job)
            return None
        what = "the cell" if arguments.cell is not None else describe(command)
        _run(session, sandbox, command, what, arguments, input=given, **options)
    return None


def python(session: Session, arguments: argparse.Namespace) -> None:
    """Run the cell as Python in the guest; values go in and come out as JSON.

    Needs a guest with python3: %sandbox start --image python.

    Such as:
      %%sandbox python --in numbers --out total
      total = sum(numbers)
    """
    options = grammar.command_options(arguments)
    values, wanted = _json_values(session, arguments.given), arguments.wanted
    options["input"] = json.dumps({"code": arguments.cell, "values": values, "wanted": wanted})
    sandbox = session.find(arguments.name)
    place = f"/tmp/sandbox_nb-{secrets.token_hex(8)}.json"  # noqa: S108 - in the guest
    command = ["python3", "-c", _GUEST_CELL.read_text(), place]
    try:
        result = _run(session, sandbox, command, "the cell", arguments, **options)
        if wanted and result.returncode == 0:
            for name, value in json.loads(sandbox.read(place)).items():
                session.bind(name, value)
    except ProcessFailed as error:
        if error.returncode == EXIT_NOT_FOUND:
            remedy = f"%sandbox start --replace --image python --name {session.name(arguments.name)}"
            raise FailedPrecondition(f"{sandbox.name} has no python3: {remedy}") from error
        raise
    finally:
        if wanted:
            _remove(sandbox, place)


def write(session: Session, arguments: argparse.Namespace) -> None:
    """Write the cell to a file of the guest.

    Such as:
      %%sandbox write /etc/motd
    """
    session.find(arguments.name).write(arguments.path, arguments.cell, mode=arguments.mode)


def _run(
    session: Session, sandbox: Sandbox, command: Command, what: str, arguments: argparse.Namespace, **how: Any
) -> CellResult:
    """Run a command to its end; show, keep, bind and judge what it did."""
    spools = session.spools.pair()
    output = CellOutput(spools, shown=not arguments.quiet)
    returncode, killed = None, False
    try:
        try:
            done = sandbox.run(command, stream=output, capture_output=False, **how)
            returncode, killed = done.returncode, done.out_of_memory
        finally:
            output.finish()
            result = CellResult(command, spools, returncode, out_of_memory=killed)
            if arguments.out:
                session.bind(arguments.out, result)
    except ProcessTimedOut as error:
        # Named as it was typed, not as the script that it became.
        raise ProcessTimedOut(what, error.timeout) from error
    if returncode and not arguments.no_raise:
        if arguments.cell is None and _is_not_there(grammar.command_words(arguments)[0], result):
            print("a line is one program and its arguments; %%sandbox run has a shell", file=sys.stderr)
        if killed:
            what += f", which the guest ended for want of memory ({_with_more_memory(sandbox.options)}),"
        raise ProcessFailed(returncode, what)
    return result


def _is_not_there(program: str, result: CellResult) -> bool:
    """Whether the agent found no such program, as it says in a shell's words."""
    return result.returncode == EXIT_NOT_FOUND and result.stderr.endswith(f": {program}: command not found\n")


def _with_more_memory(options: Options) -> str:
    """What to say at a start for twice the memory."""
    return f"%sandbox start --replace --cpu {options.cpu_count} --memory {2 * options.memory_mib}"


def _begin(
    session: Session,
    sandbox: Sandbox,
    command: Command,
    script: str | None,
    given: bytes | None,
    options: dict[str, Any],
) -> Job:
    """Start a command and go on; what it writes is kept, and its script removed when it has ended."""
    spools = session.spools.pair()

    async def keep(number: int, data: bytes) -> None:
        await asyncio.to_thread(spools[number].write, data)

    timeout = options.pop("timeout")
    stdin = DEVNULL if given is None else PIPE
    raw = sandbox.runner.wait(sandbox.asynchronous.spawn(command, stdin=stdin, **options))
    output = Output(command, sink=keep, keep=False)

    async def work() -> None:
        try:
            await communicate(raw, output, data=given or b"", timeout=timeout)
        finally:
            await _removed(sandbox.asynchronous, script)

    return Job(raw, sandbox.runner, sandbox.runner.submit(work()), spools)


def _script(sandbox: Sandbox, interpreter: str, text: str, user: str) -> tuple[Command, str | None]:
    """The command that runs ``text``, and the file it takes it from: all but the shell, as not all have ``-c``."""
    if interpreter == "sh":
        return ["sh", "-c", text], None
    place = f"/tmp/sandbox_nb-{secrets.token_hex(8)}"  # noqa: S108 - in the guest
    # It is root's. That of another user all may read, as they may the text that a shell has as an argument.
    sandbox.write(place, text, mode=0o644 if user else 0o600)
    return [interpreter, place], place


def _remove(sandbox: Sandbox, path: str | None) -> None:
    sandbox.runner.wait(_removed(sandbox.asynchronous, path))


async def _removed(sandbox: AsyncSandbox, path: str | None) -> None:
    """Have a file of the guest gone, if there is one."""
    # It may have gone with its machine; a guest that is frozen never answers.
    with contextlib.suppress(SandboxError, TimeoutError):
        async with asyncio.timeout(KILL_TIMEOUT):
            if path is not None:
                await sandbox.remove(path)


def _text_or_bytes(session: Session, name: str) -> bytes:
    return guest_data(f"--stdin {name}", session.value(name))


def _json_values(session: Session, names: list[str]) -> dict[str, Any]:
    values = {name: session.value(name) for name in names}
    for name, value in values.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"--in {name}: {error}; values cross as JSON") from None
    return values


def _run_arguments(parser: Parser) -> None:
    grammar.add_command_options(parser)
    parser.add_argument("--interpreter", default="sh", metavar="PROGRAM", help="what runs the cell, sh or another")
    action = parser.add_argument("--stdin", metavar="VARIABLE", type=variable, help="text or bytes for its input")
    complete(action, COMPLETE_VARIABLE)
    parser.add_argument("--out", metavar="VARIABLE", type=variable, help="bind the result, with the whole output")
    parser.add_argument("--bg", action="store_true", help="go on at once; the result is a job")
    _add_ending(parser)
    complete(grammar.add_command(parser), COMPLETE_GUEST_PATH)


def _python_arguments(parser: Parser) -> None:
    grammar.add_command_options(parser)
    action = parser.add_argument(
        "--in",
        dest="given",
        action="append",
        default=[],
        metavar="VARIABLE",
        type=variable,
        help="pass a value in; may be repeated",
    )
    complete(action, COMPLETE_VARIABLE)
    parser.add_argument(
        "--out",
        dest="wanted",
        action="append",
        default=[],
        metavar="VARIABLE",
        type=variable,
        help="take a value out, to the variable of the same name; may be repeated",
    )
    # No result is bound: what comes out is the cell's values.
    parser.set_defaults(out=None)
    _add_ending(parser)


def _add_ending(parser: Parser) -> None:
    parser.add_argument("--quiet", action="store_true", help="do not show the output")
    parser.add_argument("--no-raise", action="store_true", help="let the notebook go on when the command fails")


def _write_arguments(parser: Parser) -> None:
    action = parser.add_argument("path", metavar="PATH", help="absolute path in the guest")
    complete(action, COMPLETE_GUEST_PATH)
    parser.add_argument(
        "--mode", type=_mode, default=0, metavar="BITS", help="permissions of a new file, as in 755 (default: 644)"
    )


def _mode(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no octal number") from None


VERBS = (
    Verb("run", run, _run_arguments, Cell.MAY),
    Verb("python", python, _python_arguments, Cell.MUST),
    Verb("write", write, _write_arguments, Cell.MUST),
)
