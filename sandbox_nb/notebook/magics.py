"""``%sandbox`` and ``%%sandbox``: they parse, call the API, and say in a line what happened."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class

from sandbox_nb import grammar
from sandbox_nb.blocking import Sandbox
from sandbox_nb.errors import NotFound, ProcessFailed, SandboxError
from sandbox_nb.grammar import Parser, UsageError
from sandbox_nb.notebook.progress import ProgressLine, started_line
from sandbox_nb.process import Completed
from sandbox_nb.sandbox import State
from sandbox_nb.suggest import did_you_mean

if TYPE_CHECKING:
    from sandbox_nb.boot import Boot
    from sandbox_nb.notebook.terminal import Terminal

DEFAULT_NAME = "sandbox"

_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


@magics_class
class SandboxMagics(Magics):
    """The magics of one IPython session, and the sandboxes they started, by name."""

    shell: InteractiveShell

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.sandboxes: dict[str, Sandbox] = {}
        self._parser = _parser(self)

    @line_cell_magic
    def sandbox(self, line: str, cell: str | None = None) -> Any:
        """Start, use and stop virtual machines; ``%sandbox --help`` lists the commands."""
        try:
            return self._act(line, cell)
        except SystemExit:  # --help was answered
            return None
        except SandboxError as error:
            _show_as_one_line(error)
            raise

    def _act(self, line: str, cell: str | None) -> Any:
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"%sandbox {line}: {error}") from error
        if not words:
            self._parser.print_help()
            return None
        arguments = self._parser.parse_args(words)
        if cell is not None and not arguments.takes_cell:
            raise UsageError(f"%%sandbox {words[0]} takes no cell; write %sandbox {words[0]}")
        arguments.cell = cell
        act: Callable[[argparse.Namespace], Any] = arguments.act
        return act(arguments)

    def start(self, arguments: argparse.Namespace) -> None:
        """Start a machine; one that runs already is left alone, reused or replaced, as told."""
        name = arguments.name
        known = self.sandboxes.get(name)
        if known is not None and known.state is State.RUNNING and not arguments.replace:
            hint = "" if arguments.reuse else "; --reuse says that this is meant, --replace starts afresh"
            print(f"{name}: is running already{hint}")
            return
        if known is not None:
            self._end(known)
        sandbox = Sandbox(name)
        progress = ProgressLine()
        options = grammar.machine_options(arguments)
        sandbox.start(lambda _: options, progress=progress)
        self.sandboxes[name] = sandbox
        progress.finish(started_line(sandbox))

    def stop(self, arguments: argparse.Namespace) -> None:
        """Stop one machine, or all."""
        names = list(self.sandboxes) if arguments.all else [arguments.name]
        for name in names:
            self._find(name)
            self._end(self.sandboxes.pop(name))
            print(f"{name}: stopped")

    def status(self, arguments: argparse.Namespace) -> None:
        """Say what runs."""
        if not self.sandboxes:
            print("no sandbox has been started; %sandbox start")
        for sandbox in self.sandboxes.values():
            print(
                started_line(sandbox)
                if sandbox.state is State.RUNNING
                else f"{sandbox.name}: {sandbox.state.value}"
            )

    def run(self, arguments: argparse.Namespace) -> None:
        """Run the cell, or the rest of the line, in the guest, showing its output as it comes."""
        if (arguments.cell is None) == (not arguments.command):
            raise UsageError("%sandbox run CMD…, or %%sandbox run with the commands in the cell: one of the two")
        command = arguments.command if arguments.cell is None else ["sh", "-c", arguments.cell]
        options = grammar.command_options(arguments)
        result = self._find(arguments.name).run(command, stream=not arguments.quiet, **options)
        if arguments.out:
            self.shell.user_ns[arguments.out] = result
        if result.returncode and not arguments.no_raise:
            raise _failed(result, "the cell" if arguments.cell is not None else shlex.join(command))

    def timeline(self, arguments: argparse.Namespace) -> Boot:
        """Show the phases of a machine's start as a picture."""
        return self._find(arguments.name).boot

    def terminal(self, arguments: argparse.Namespace) -> Terminal:
        """Show a terminal: a login shell in the guest, a command, a stream, or the console."""
        from sandbox_nb.notebook.guest_terminal import open_terminal

        look = {name: getattr(arguments, name) for name in ("height", "readonly")}
        command = shlex.split(arguments.command) if arguments.command else None
        options = {"stream": arguments.stream, "console": arguments.console, "user": arguments.user}
        return open_terminal(self._find(arguments.name), command, **options, **look)

    def stop_all(self) -> None:
        """Stop every machine started here."""
        for sandbox in self.sandboxes.values():
            self._end(sandbox)
        self.sandboxes.clear()

    def _find(self, name: str) -> Sandbox:
        sandbox = self.sandboxes.get(name)
        if sandbox is None:
            option = "" if name == DEFAULT_NAME else f" --name {name}"
            guess = did_you_mean(name, self.sandboxes)
            raise NotFound(f"no sandbox {name!r} has been started: %sandbox start{option}{guess}")
        return sandbox

    @staticmethod
    def _end(sandbox: Sandbox) -> None:
        if sandbox.state in (State.RUNNING, State.FAILED):
            sandbox.stop()


def load(shell: InteractiveShell) -> None:
    """Register the magics with ``shell``."""
    shell.register_magics(SandboxMagics(shell))


def unload(shell: InteractiveShell) -> None:
    """Stop the machines and take the magics away."""
    magics = shell.magics_manager.registry.pop(SandboxMagics.__name__, None)
    if magics is not None:
        magics.stop_all()
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("sandbox", None)


def _parser(magics: SandboxMagics) -> Parser:
    parser = Parser(prog="%sandbox", description="A real Linux machine in a notebook cell.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="verb")

    start = _command(commands, "start", magics.start)
    grammar.add_machine_options(start)
    choice = start.add_mutually_exclusive_group()
    choice.add_argument("--reuse", action="store_true", help="keep a machine that runs already, and say no more")
    choice.add_argument("--replace", action="store_true", help="stop a machine that runs already, start afresh")

    stop = _command(commands, "stop", magics.stop)
    stop.add_argument("--all", action="store_true", help="stop every machine of this notebook")

    _command(commands, "status", magics.status)

    _command(commands, "timeline", magics.timeline)

    terminal = _command(commands, "terminal", magics.terminal)
    terminal.add_argument("--command", metavar="CMD", help="what to run instead of a login shell")
    terminal.add_argument("--stream", metavar="ID", help="show the stream of this id")
    terminal.add_argument("--console", action="store_true", help="show the serial console")
    terminal.add_argument("--user", default="", metavar="USER", help="user of the guest to run as")
    terminal.add_argument("--height", type=int, default=24, metavar="ROWS", help="rows")
    terminal.add_argument("--readonly", action="store_true", help="show, and take no keys")

    run = _command(commands, "run", magics.run, takes_cell=True)
    grammar.add_command_options(run)
    run.add_argument("--out", metavar="VARIABLE", type=_variable, help="bind the result, with the whole output")
    run.add_argument("--quiet", action="store_true", help="do not show the output")
    run.add_argument("--no-raise", action="store_true", help="let the notebook go on when the command fails")
    run.add_argument("command", nargs="*", metavar="CMD", help="the command, as in %%sandbox run -- ls -l")
    return parser


def _command(
    commands: Any, verb: str, act: Callable[..., Any], *, takes_cell: bool = False
) -> argparse.ArgumentParser:
    assert act.__doc__ is not None
    parser: argparse.ArgumentParser = commands.add_parser(
        verb, help=act.__doc__.splitlines()[0], description=act.__doc__
    )
    parser.add_argument("--name", default=DEFAULT_NAME, help="which sandbox")
    parser.set_defaults(act=act, takes_cell=takes_cell)
    return parser


def _variable(text: str) -> str:
    if not text.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is no variable name")
    return text


def _failed(result: Completed[str], what: str) -> ProcessFailed:
    return ProcessFailed(result.returncode, what, result.stdout, result.stderr)


def _show_as_one_line(error: SandboxError) -> None:
    """Let IPython show the message where it would show a traceback, which leads into our code, not the user's."""

    def render() -> list[str]:
        return [f"{_RED}{type(error).__name__}: {error}{_PLAIN}"]

    error._render_traceback_ = render  # type: ignore[attr-defined]
