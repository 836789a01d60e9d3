"""Sandbox: the verbs of AsyncSandbox for people who do not await."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from sandbox_nb.background import BACKGROUND, Call, Runner
from sandbox_nb.base import BaseSandbox
from sandbox_nb.command import Command
from sandbox_nb.devices import Device
from sandbox_nb.errors import FailedPrecondition, SandboxError
from sandbox_nb.events import AsyncEvents, Events
from sandbox_nb.files.info import AnyPath, Copied, CopyProgress, FileInfo
from sandbox_nb.forward import Forward
from sandbox_nb.guest.proto.system_pb2 import InfoResponse
from sandbox_nb.hardware import AttachedDevice, Devices
from sandbox_nb.host import Progress
from sandbox_nb.lens.recorder import Lens
from sandbox_nb.life import State
from sandbox_nb.options import Option
from sandbox_nb.popen import Process
from sandbox_nb.run import Completed, Echo, RunKeywords, Sink, check_sink
from sandbox_nb.sandbox import AsyncSandbox
from sandbox_nb.services import OPEN_TIMEOUT, Services
from sandbox_nb.stats import Connection, Stats
from sandbox_nb.ttrpc import Client

if TYPE_CHECKING:
    from sandbox_nb.notebook.terminal import Terminal

__all__ = ["Sandbox"]


class Sandbox(BaseSandbox):
    """A virtual machine.

    As a context manager it starts nothing, and guarantees the stop; ``Sandbox.started`` starts too::

        with Sandbox.started(cpu=2, memory=512) as sb:
            print(sb.run("uname -a").stdout)

    Every verb is the one of the same name of AsyncSandbox, described there.
    """

    def __init__(self, name: str = "sandbox") -> None:
        self._asynchronous = AsyncSandbox(name)
        self._owner = os.getpid()
        self.runner: Runner = BACKGROUND

    @classmethod
    def over(cls, asynchronous: AsyncSandbox, runner: Runner) -> Self:
        """The blocking face of an AsyncSandbox that lives on the loop of ``runner``."""
        sandbox = cls(asynchronous.name)
        sandbox._asynchronous, sandbox.runner = asynchronous, runner
        return sandbox

    @classmethod
    def started(
        cls, *options: Option, name: str = "sandbox", timeout: float | None = None, **keywords: Any
    ) -> Sandbox:
        """Make a sandbox and start it."""
        sandbox = cls(name)
        try:
            sandbox.start(*options, timeout=timeout, **keywords)
        except BaseException:
            sandbox.close()  # an interrupt may have come when it had just started
            raise
        return sandbox

    def start(
        self, *options: Option, timeout: float | None = None, progress: Progress | None = None, **keywords: Any
    ) -> None:
        """Start the machine."""
        self.runner.wait(self._start(*options, timeout=timeout, progress=progress, **keywords))

    def begin_start(self, *options: Option, **keywords: Any) -> Call[None]:
        """Begin to start the machine, as ``start`` does, and return at once. ``cancel`` takes it back."""
        return self.runner.submit(self._start(*options, **keywords))

    async def _start(self, *options: Option, **keywords: Any) -> None:
        await self.asynchronous.start(*options, **keywords)
        _RUNNING.add(self)

    def stop(self, **keywords: Any) -> None:
        """Power the guest off, and end it by force when it has not in time."""
        self.runner.wait(self.asynchronous.stop(**keywords))
        _RUNNING.discard(self)

    def client(self) -> Client:
        """A ttrpc client to the agent. It lives on the sandbox's loop: await its calls with ``runner.wait``."""
        return self.runner.wait(self.asynchronous.client())

    def start_stream(self, identity: str, *, timeout: float | None = OPEN_TIMEOUT) -> socket.socket:
        """Open a raw byte stream under a one-time id and return its connected, blocking socket."""
        sock = self.runner.wait(self.asynchronous.open_stream(identity, timeout=timeout))
        sock.setblocking(True)
        return sock

    @overload
    def run(
        self, command: Command, *, text: Literal[True] = True, **how: Unpack[RunKeywords]
    ) -> Completed[str]: ...

    @overload
    def run(self, command: Command, *, text: Literal[False], **how: Unpack[RunKeywords]) -> Completed[bytes]: ...

    def run(self, command: Command, *, stream: bool | Sink = False, **how: Any) -> Completed[Any]:
        """Run a command to its end and return how it ended, with all its output.

        With ``stream`` the echo, or the function given, runs in the calling thread. In a notebook's cell the echo
        of long output is its head and tail, with the name of a file that has all of it.
        """
        if not stream:
            return self.runner.wait(self.asynchronous.run(command, **how))
        check_sink(None if stream is True else stream)
        with _echo() if stream is True else contextlib.nullcontext(stream) as sink:
            return self.runner.wait_telling(
                lambda relay: self.asynchronous.run(command, stream=relay, **how), sink
            )

    def popen(self, command: Command, **keywords: Any) -> Process:
        """Start a command and return it running."""
        return Process(self.runner.wait(self.asynchronous.spawn(command, **keywords)), self.runner)

    def read(self, path: AnyPath) -> bytes:
        """The bytes of a file in the guest."""
        return self.runner.wait(self.asynchronous.read(path))

    def write(self, path: AnyPath, data: bytes | str, *, mode: int = 0) -> None:
        """Make a file in the guest, or replace its content, all at once."""
        self.runner.wait(self.asynchronous.write(path, data, mode=mode))

    def stat(self, path: AnyPath, *, follow_symlinks: bool = True) -> FileInfo:
        """What is known of a file, folder or link in the guest."""
        return self.runner.wait(self.asynchronous.stat(path, follow_symlinks=follow_symlinks))

    def listdir(self, path: AnyPath) -> list[FileInfo]:
        """What is in a folder of the guest, by name."""
        return self.runner.wait(self.asynchronous.listdir(path))

    def mkdir(self, path: AnyPath, *, mode: int = 0o755, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a folder in the guest."""
        self.runner.wait(self.asynchronous.mkdir(path, mode=mode, parents=parents, exist_ok=exist_ok))

    def remove(self, path: AnyPath, *, recursive: bool = False) -> None:
        """Remove a file, a link or a folder of the guest."""
        self.runner.wait(self.asynchronous.remove(path, recursive=recursive))

    def copy_to(self, source: AnyPath, target: AnyPath, *, progress: CopyProgress | None = None) -> Copied:
        """Copy a file or folder of the host into the guest. ``progress`` is called on the sandbox's loop."""
        return self.runner.wait(self.asynchronous.copy_to(source, target, progress=progress))

    def copy_from(self, source: AnyPath, target: AnyPath, *, progress: CopyProgress | None = None) -> Copied:
        """Copy a file or folder of the guest to the host. ``progress`` is called on the sandbox's loop."""
        return self.runner.wait(self.asynchronous.copy_from(source, target, progress=progress))

    def forward(self, host_port: int, guest: int | str) -> Forward:
        """Listen on a port of 127.0.0.1 (0: a free one) for what listens in the guest, with no network card."""
        return Forward(self.runner.wait(self.asynchronous.forward(host_port, guest)), self.runner.wait)

    def forward_socket(self, path: str, host: int | str) -> Forward:
        """Have the guest listen on a UNIX socket, for what listens on the host."""
        return Forward(self.runner.wait(self.asynchronous.forward_socket(path, host)), self.runner.wait)

    def url(self, guest_port: int) -> str:
        """The URL of what listens on a TCP port of the guest, which is forwarded if it is not yet."""
        return self.runner.wait(self.asynchronous.url(guest_port))

    def info(self) -> InfoResponse:
        """The agent's version and the guest's kernel."""
        return self.runner.wait(self.asynchronous.info())

    def attach(self, device: Device) -> AttachedDevice:
        """Attach a disk, share or network card to the running machine. See AsyncSandbox.attach."""
        return self.runner.wait(self.asynchronous.attach(device))

    def detach(self, name: str) -> None:
        """Detach a device by its block id, tag or name. See AsyncSandbox.detach."""
        self.runner.wait(self.asynchronous.detach(name))

    def devices(self) -> Devices:
        """The disks, shares and network cards that are attached."""
        return self.runner.wait(self.asynchronous.devices())

    def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write what a bug report should come with. See AsyncSandbox.report."""
        return self.runner.wait(self.asynchronous.report(path))

    def attach_console(self) -> socket.socket:
        """A connected, blocking socket on the guest's serial console."""
        sock = self.runner.wait(self.asynchronous.attach_console())
        sock.setblocking(True)
        return sock

    def terminal(self, command: Command | None = None, **keywords: Any) -> Terminal:
        """A terminal to show in the notebook: on a login shell, a command, ``stream=ID`` or ``console=True``.

        Keywords as for ``sandbox_nb.notebook.guest_terminal.open_terminal``.
        """
        # A step up the house: the notebook's room is loaded when somebody in a notebook asks for it.
        from sandbox_nb.notebook.guest_terminal import open_terminal

        return open_terminal(self, command, **keywords)

    def events(self) -> Events:
        """What happens to processes of the guest from now on."""

        async def subscribe() -> AsyncEvents:
            return self.asynchronous.events()

        return Events(self.runner.wait(subscribe()), self.runner.wait)

    def stats(self, *, processes: bool = False) -> Stats:
        """How busy the guest is: counters since its boot, and its processes if they are asked for."""
        return self.runner.wait(self.asynchronous.stats(processes=processes))

    def connections(self) -> list[Connection]:
        """The vsock connections with their credit; none are told where the host's kernel carries them."""
        return self.runner.wait(self.asynchronous.connections())

    def trace(self) -> Lens:
        """Record what crosses between the host and the machine from now on: calls, packets, QMP messages."""
        return Lens(self.runner.wait(self.asynchronous.trace()), self.runner.wait)

    @property
    def asynchronous(self) -> AsyncSandbox:
        """The AsyncSandbox beneath. Raises FailedPrecondition in a forked child: the machine is the parent's."""
        if self._owner != os.getpid():
            raise FailedPrecondition(
                f"{self._asynchronous.name} belongs to process {self._owner}; this is a fork of it"
            )
        return self._asynchronous

    def _known(self) -> Services:
        return self.asynchronous._services

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._owner == os.getpid():
            self.close()

    def close(self) -> None:
        """Stop the machine in whatever state it is: a start under way is taken back, a stop waited for."""
        self.runner.wait(self.asynchronous.close())
        _RUNNING.discard(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._asynchronous.name} {self._asynchronous.state.value}>"


def _echo() -> AbstractContextManager[Sink]:
    """A sink that shows output to whoever called; in a cell within what a notebook's server takes."""
    if not type(sys.stdout).__module__.startswith("ipykernel."):
        return contextlib.nullcontext(Echo())
    # A step up the house, as for a terminal: into the notebook's room, by who is in a notebook.
    from sandbox_nb.notebook.cell_output import echoed

    return echoed()


# Held until they are stopped: a machine runs on when nobody refers to its Sandbox any more.
_RUNNING: set[Sandbox] = set()


@atexit.register
def _stop_all() -> None:
    """Leave no run folder behind when the interpreter ends. The guards would end the machines anyway."""
    for sandbox in list(_RUNNING):
        # A forked child has the objects, and not the machines.
        with contextlib.suppress(SandboxError):
            if sandbox.state in (State.RUNNING, State.FAILED):
                sandbox.stop(timeout=0.5)
