"""The agent, compiled for this host with AddressSanitizer and UBSan, serving over UNIX sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio

from sandbox_nb import binaries
from sandbox_nb.guest.proto import process_pb2 as pb
from sandbox_nb.guest.proto.files_ttrpc import FilesClient
from sandbox_nb.guest.proto.mount_ttrpc import MountClient
from sandbox_nb.guest.proto.network_ttrpc import NetworkClient
from sandbox_nb.guest.proto.power_ttrpc import PowerClient
from sandbox_nb.guest.proto.process_ttrpc import ProcessClient
from sandbox_nb.guest.proto.setup_pb2 import ConfigureRequest
from sandbox_nb.guest.proto.setup_ttrpc import SetupClient
from sandbox_nb.guest.proto.system_ttrpc import SystemClient
from sandbox_nb.ttrpc import Client

SOURCES = Path(__file__).parents[3] / "sandbox_nb" / "guest" / "agent"
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
FLAGS = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-g",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Werror",
    '-DAGENT_VERSION="test"',
    *SANITIZE,
)


def compile_native(out: Path, *sources: Path, flags: Sequence[str] = ()) -> Path:
    """Compile with Debian's gcc: ziglang's compiler takes the sanitizers' flag and silently does without."""
    subprocess.run(["gcc", *FLAGS, *flags, f"-I{SOURCES}", "-o", out, *sources], check=True)
    return out


@pytest.fixture(scope="session")
def sanitized_agent(tmp_path_factory):
    """Path of the agent's native build."""
    return compile_native(tmp_path_factory.mktemp("native") / "agent", *sorted(SOURCES.glob("*.c")))


@pytest.fixture
def native_agent(request, sanitized_agent):
    """The agent under test: the sanitized one or, with "shipped", the binary that goes into images."""
    if getattr(request, "param", "sanitized") == "shipped":
        return binaries.agent(platform.machine())
    return sanitized_agent


def writable_cgroup() -> Path | None:
    """A cgroup v2 folder in which cgroups can be made, if this host has one."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(target, os.W_OK):
            return Path(target)
    return None


@dataclass
class Result:
    """How a process ended."""

    out: bytes
    err: bytes
    exit_code: int
    signal: int
    response: pb.WaitResponse


@dataclass
class Agent:
    """A running agent with one control connection to it."""

    folder: Path
    child: subprocess.Popen[bytes]
    listener: socket.socket
    cgroup: Path | None
    log: Path
    client: Client | None = None
    sockets: list[socket.socket] = field(default_factory=list)

    async def accept(self) -> socket.socket:
        """The agent's next call."""
        sock, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(self.listener), 10)
        return sock

    async def connect(self) -> None:
        """Take the agent's call and be its client."""
        self.client = await Client.from_socket(await self.accept())

    async def configure(self, **fields) -> None:
        await SetupClient(self.client).configure(ConfigureRequest(**fields))

    @property
    def processes(self) -> ProcessClient:
        return ProcessClient(self.client)

    @property
    def files(self) -> FilesClient:
        return FilesClient(self.client)

    @property
    def mounts(self) -> MountClient:
        return MountClient(self.client)

    @property
    def network(self) -> NetworkClient:
        return NetworkClient(self.client)

    @property
    def system(self) -> SystemClient:
        return SystemClient(self.client)

    @property
    def power(self) -> PowerClient:
        return PowerClient(self.client)

    async def raw_stream(self) -> socket.socket:
        """A connection to the port of the streams; nothing said yet."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.sockets.append(sock)
        while True:
            try:
                sock.connect(str(self.folder / "1026"))
            except BlockingIOError:  # the backlog is full; a UNIX socket's connect is not in progress then
                await asyncio.sleep(0.01)
            else:
                return sock

    async def greet(self, identity: bytes, *, behind: bytes = b"") -> tuple[socket.socket, bytes]:
        """Open a stream; return it and the agent's answer."""
        loop = asyncio.get_running_loop()
        sock = await self.raw_stream()
        await loop.sock_sendall(sock, struct.pack(">I", len(identity)) + identity + behind)
        (length,) = struct.unpack(">I", await read_exactly(sock, 4))
        return sock, await read_exactly(sock, length)

    async def stream(self, *, behind: bytes = b"") -> tuple[str, socket.socket]:
        """Open a stream under a new id; return its name for requests, and it."""
        identity = f"s-{secrets.token_hex(6)}"
        sock, answer = await self.greet(identity.encode(), behind=behind)
        assert answer == identity.encode()
        return f"stream://{identity}", sock

    async def start(self, *args: str | bytes, pid: bool = False, **fields) -> str | tuple[str, int]:
        """Start a process; return its id."""
        identity = f"p-{secrets.token_hex(6)}"
        arguments = [os.fsencode(argument) for argument in args]
        response = await self.processes.start(pb.StartRequest(id=identity, args=arguments, **fields))
        return (identity, response.pid) if pid else identity

    async def wait(self, identity: str) -> pb.WaitResponse:
        return await self.processes.wait(pb.WaitRequest(id=identity))

    async def kill(self, identity: str, number: int = signal.SIGKILL, *, everything: bool = False) -> None:
        await self.processes.kill(pb.KillRequest(id=identity, signal=number, all=everything))

    async def run(self, *args: str | bytes, data: bytes | None = None, **fields) -> Result:
        """Run a process to its end with its three files as pipes."""
        stdin, feed = await self.stream()
        (stdout, out), (stderr, err) = await self.stream(), await self.stream()
        identity = await self.start(*args, stdin=stdin, stdout=stdout, stderr=stderr, **fields)
        writing = asyncio.create_task(send_and_end(feed, data or b""))
        told = await asyncio.gather(read_all(out), read_all(err))
        response = await self.wait(identity)
        await writing
        return Result(*told, response.exit_code, response.signal, response)

    async def eventually(self, condition) -> None:
        """Wait until ``condition()`` holds; the test's own time-out ends the wait."""
        while not condition():
            await asyncio.sleep(0.01)

    def inside(self, path: Path) -> Path:
        """The path in the agent's own tree, which may be another than ours."""
        return Path(f"/proc/{self.child.pid}/root{path}")

    def descriptors(self) -> int:
        """How many fds the agent has open."""
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))


async def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        if not piece:
            raise EOFError(data)
        data += piece
    return data


async def read_all(sock: socket.socket) -> bytes:
    """Everything up to the end; a reset counts as one."""
    data = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := await asyncio.get_running_loop().sock_recv(sock, 65536):
            data += piece
    return bytes(data)


async def send_and_end(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(sock, data)
        sock.shutdown(socket.SHUT_WR)


@pytest.fixture
def launcher():
    """What starts the agent, for a module to override: a command that executes the one behind it."""
    return []


@pytest_asyncio.fixture
async def bare_agent(native_agent, launcher):
    """An agent that has dialled nobody's client yet; after the test it must have kept to the sanitizers' rules."""
    folder = Path(tempfile.mkdtemp(prefix="agent-"))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.bind(str(folder / "1025"))
    listener.listen()
    host_cgroup = writable_cgroup()
    cgroup = host_cgroup / f"agent-test-{secrets.token_hex(4)}" if host_cgroup else None
    flags = [f"-unix={folder}", f"-cgroup={cgroup or '/nowhere/at/all'}"]
    log = folder / "log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            [*launcher, native_agent, *flags], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    agent = Agent(folder, child, listener, cgroup, log)
    try:
        yield agent
        assert child.poll() in (None, 0), log.read_text()
        child.terminate()
        assert child.wait(20) == 0, log.read_text()
        text = log.read_text()
        assert "Sanitizer" not in text, text
        assert "runtime error" not in text, text
    finally:
        child.kill()
        child.wait()
        if agent.client is not None:
            await agent.client.aclose()
        for sock in (agent.listener, *agent.sockets):
            sock.close()
        if cgroup is not None and cgroup.exists():
            for inner in [*cgroup.glob("*/"), cgroup]:
                inner.rmdir()
        shutil.rmtree(folder)


@pytest_asyncio.fixture
async def new_agent(bare_agent):
    """An agent with a client, not set up."""
    await bare_agent.connect()
    return bare_agent


@pytest_asyncio.fixture
async def agent(new_agent):
    """An agent ready for processes."""
    await new_agent.configure()
    return new_agent


@pytest.fixture(scope="session")
def tools():
    """The helpers above, for tests: fixtures are all that conftest can hand over."""
    return SimpleNamespace(
        read_all=read_all, read_exactly=read_exactly, send_and_end=send_and_end, compile_native=compile_native
    )


@pytest.fixture(scope="session")
def agent_sources():
    """The folder of the agent's C files."""
    return SOURCES
