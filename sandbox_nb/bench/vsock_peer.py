"""A machine for measuring and testing the vsock device: QEMU, device processes, a guest program that moves bytes.

The guest program (tests/vsock/guest) is compiled with ziglang and takes the agent's place in the base image. It
answers requests on vsock, TCP and virtio-serial alike; peer.c describes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import platformdirs

from sandbox_nb import host
from sandbox_nb.background import run_blocking
from sandbox_nb.errors import FailedPrecondition
from sandbox_nb.guest import image
from sandbox_nb.options import Options
from sandbox_nb.vm import command

PORT = 5000
GUEST_CID = 3
DEVICE = Path(__file__).parents[1] / "vsock" / "__main__.py"
SOURCES = Path(__file__).parents[2] / "tests" / "vsock" / "guest"
MEMORY = 256

_REQUEST = struct.Struct("<IIQQ")
_ANSWER = struct.Struct("<Q")


def request(verb: str, *, block: int = 1 << 20, count: int = 0, argument: int = 0) -> bytes:
    """A request to the guest program."""
    return _REQUEST.pack(ord(verb), block, count, argument)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """`size` bytes from a blocking socket; EOFError if it ends first."""
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError(f"ended after {len(data)} of {size} bytes")
        data += piece
    return bytes(data)


def read_answer(sock: socket.socket) -> int:
    """The number a request ends with."""
    (value,) = _ANSWER.unpack(read_exactly(sock, _ANSWER.size))
    return int(value)


def guest_program() -> Path:
    """Compile the guest program, once for each state of its source."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    if not sources:
        raise FailedPrecondition(f"the guest program's source is not in {SOURCES}: run this from the repository")
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    program = Path(platformdirs.user_cache_dir("sandbox_nb")) / "bench" / f"peer-{digest}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl"]
        units = [source for source in sources if source.suffix == ".c"]
        with tempfile.TemporaryDirectory(dir=program.parent) as folder:
            made = Path(folder) / "peer"
            subprocess.run([*compiler, "-static", "-O2", "-Wall", "-Werror", *units, "-o", made], check=True)
            made.rename(program)
    return program


class Device:
    """A device process, its two sockets in `folder`."""

    def __init__(self, folder: Path, *, cid: int = GUEST_CID, arguments: Sequence[str] = ()) -> None:
        self.vhost = folder / "vhost"
        self.uds = folder / "v"
        self.errors = folder / "device.log"
        command = [sys.executable, "-I", "-S", str(DEVICE), "--socket", str(self.vhost), "--uds", str(self.uds)]
        self._control, theirs = socket.socketpair()
        self._answers = self._control.makefile()
        command += ["--cid", str(cid), "--control-fd", str(theirs.fileno()), *arguments]
        with self.errors.open("ab") as errors, theirs:
            self.process = subprocess.Popen(command, stderr=errors, pass_fds=[theirs.fileno()])
        while not self.uds.exists():
            if self.process.poll() is not None:
                raise FailedPrecondition(f"the device ended: {self.errors.read_text()}")
            time.sleep(0.0002)

    def dial(self, port: int = PORT, *, timeout: float = 60) -> socket.socket:
        """A blocking socket connected to a guest port; ConnectionRefusedError if the guest refuses it."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        try:
            sock.connect(str(self.uds))
            sock.sendall(b"CONNECT %d\n" % port)
            line = b""
            while not line.endswith(b"\n"):
                byte = sock.recv(1)
                if not byte:
                    raise ConnectionRefusedError(f"guest port {port} refused")
                line += byte
        except (BrokenPipeError, ConnectionResetError) as error:  # closed with our line unread
            sock.close()
            raise ConnectionRefusedError(f"guest port {port} refused") from error
        except BaseException:
            sock.close()
            raise
        return sock

    def listen(self, port: int) -> socket.socket:
        """A socket the guest reaches as host port `port`."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(f"{self.uds}_{port}")
        sock.listen(128)
        sock.settimeout(60)
        return sock

    def ask(self, command: str, **arguments: Any) -> Any:
        """The answer to a control command."""
        self._control.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
        answer = json.loads(self._answers.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def connections(self) -> int:
        """Connections open, opening or lingering."""
        statistics = self.ask("statistics")
        return len(statistics["streams"]) + int(statistics["handshakes"])

    def open_files(self) -> int:
        """File descriptors of the process."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def anonymous_kib(self) -> int:
        """The process's own memory (RssAnon), in KiB."""
        return self._status("RssAnon")

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:")))

    def cpu_seconds(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End the process as its owner would."""
        self._answers.close()
        self._control.close()
        self.process.wait(10)


class Machine:
    """The machine a plain start makes, with the guest program for an agent, and whatever `arguments` add.

    No vsock device is plugged yet: `plug_vsock` does that. Unlike a sandbox's, its guest may reboot.
    """

    def __init__(self, folder: Path, *, arguments: Sequence[str] = (), append: str = "") -> None:
        found = image.ensure("base", agent=guest_program())
        accelerator = run_blocking(host.choose_accelerator(Options()))
        self.errors = folder / "qemu.log"
        self._buffer = b""
        self._said = bytearray()
        self._qmp, qmp = socket.socketpair()
        self._console, console = socket.socketpair()
        self._console.setblocking(False)
        ram = os.memfd_create("ram")
        os.ftruncate(ram, MEMORY << 20)
        arch = host.guest_architecture(Options())
        spec = command.Spec(arch, host.find_qemu(arch), accelerator.name, 1, MEMORY, found.kernel, found.initrd)
        boot = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in (spec.kernel, spec.initrd)]
        fds = command.Fds(ram, qmp.fileno(), console.fileno(), *boot)
        argv = [word for word in command.argv(spec, fds) if word not in ("-S", "-no-reboot")]
        argv[argv.index("-append") + 1] += f" {append}"
        try:
            with self.errors.open("ab") as errors, qmp, console:
                self.process = subprocess.Popen(
                    [*argv, *arguments], stderr=errors, pass_fds=[fds.ram, fds.qmp, fds.console, *boot]
                )
        finally:
            for fd in (ram, *boot):
                os.close(fd)
        self._read_line()
        self.execute("qmp_capabilities")

    def _read_line(self) -> Any:
        while b"\n" not in self._buffer:
            piece = self._qmp.recv(65536)
            if not piece:
                raise FailedPrecondition(f"QEMU ended: {self.errors.read_text()}")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def execute(self, command: str, **arguments: Any) -> Any:
        """A QMP command's answer; events meanwhile are passed over."""
        message = {"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        self._qmp.sendall(json.dumps(message).encode() + b"\n")
        while True:
            answer = self._read_line()
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def wait_event(self, name: str, **data: Any) -> None:
        """Wait for an event with this data."""
        while True:
            event = self._read_line()
            if event.get("event") == name and data.items() <= event.get("data", {}).items():
                return

    def plug_vsock(self, device: Device, *, name: str = "vsock", port: int = 0) -> None:
        """Plug a vsock device served by `device`."""
        address = {"type": "unix", "data": {"path": str(device.vhost)}}
        backend = {"type": "socket", "data": {"addr": address, "server": False}}
        self.execute("chardev-add", id=f"{name}-chardev", backend=backend)
        self.execute(
            "device_add", driver="vhost-user-vsock-pci", id=name, chardev=f"{name}-chardev", bus=f"port{port}"
        )

    def unplug_vsock(self, *, name: str = "vsock") -> None:
        """Unplug it again."""
        self.execute("device_del", id=name)
        self.wait_event("DEVICE_DELETED", device=name)
        self.execute("chardev-remove", id=f"{name}-chardev")

    def console(self) -> str:
        """What the guest has written to its console so far."""
        with contextlib.suppress(BlockingIOError):
            while piece := self._console.recv(65536):
                self._said += piece
        return self._said.decode(errors="replace")

    def wait_ready(self, *, times: int = 1) -> None:
        """Wait until the guest program has said, for the nth time, that it is ready."""
        while self.console().count("peer: ready") < times:
            if self.process.poll() is not None:
                raise FailedPrecondition(f"QEMU ended: {self.errors.read_text()}{self.console()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End QEMU."""
        self.process.kill()
        self.process.wait(10)
        self._qmp.close()
        self._console.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def wait_served(device: Device) -> None:
    """Wait until the guest program can be reached through `device`."""
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            device.dial().close()
            return
        time.sleep(0.02)


@contextlib.contextmanager
def running(*, arguments: Sequence[str] = (), device: Sequence[str] = ()) -> Iterator[tuple[Machine, Device]]:
    """A booted machine with a vsock device plugged, and that device; ended and removed after."""
    folder = Path(tempfile.mkdtemp(prefix="vsock-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        process = Device(folder, arguments=device)
        stack.callback(process.stop)
        machine = stack.enter_context(Machine(folder, arguments=arguments))
        machine.plug_vsock(process)
        machine.wait_ready()
        yield machine, process
