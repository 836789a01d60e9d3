"""The generated modules as they are checked in: current, typed, and good in the declared range."""

from __future__ import annotations

import importlib
import os
import pkgutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty

from sandbox_nb.guest import proto
from sandbox_nb.ttrpc import Client, Code, Server, StatusError

ROOT = Path(__file__).resolve().parents[2]

USER = """
from sandbox_nb.guest.proto import events_pb2, process_pb2
from sandbox_nb.guest.proto.events_ttrpc import EventsClient
from sandbox_nb.guest.proto.process_ttrpc import ProcessBase, ProcessClient
from sandbox_nb.ttrpc import Client, Context, Server


async def use(client: Client) -> None:
    process = ProcessClient(client)
    started = await process.start(process_pb2.StartRequest(id="1", args=[b"true"]), timeout=1)
    reveal_type(started.pid)
    async with EventsClient(client).stream(metadata={"a": ["b"]}) as stream:
        async for envelope in stream:
            reveal_type(envelope)
    WRONG


class Service(ProcessBase):
    async def start(self, request: process_pb2.StartRequest, context: Context) -> process_pb2.StartResponse:
        return process_pb2.StartResponse(pid=len(request.args))


Server(Service())
"""

# What a program does with generated modules: import all, call one.
PROGRAM = """
import asyncio, importlib, pkgutil, socket
import google.protobuf
import sandbox_nb.guest.proto
for module in pkgutil.iter_modules(sandbox_nb.guest.proto.__path__, "sandbox_nb.guest.proto."):
    importlib.import_module(module.name)
from sandbox_nb.guest.proto.system_pb2 import InfoResponse
from sandbox_nb.guest.proto.system_ttrpc import SystemBase, SystemClient
from sandbox_nb.ttrpc import Client, Server

class System(SystemBase):
    async def info(self, request, context):
        return InfoResponse(version=context.metadata["v"][0])

async def main():
    ours, theirs = socket.socketpair()
    async with Server(System()) as server, await Client.from_socket(ours) as client:
        await server.attach(theirs)
        return await SystemClient(client).info(metadata={"v": google.protobuf.__version__})

print(asyncio.run(main()).version)
"""


def test_they_are_current():
    subprocess.run([sys.executable, ROOT / "scripts/protos.py", "--check"], check=True)


def mypy(tmp_path: Path, source: str) -> str:
    file = tmp_path / "user.py"
    file.write_text(source)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", file]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False).stdout


def test_mypy_strict_knows_the_types_of_calls_and_finds_a_wrong_one(tmp_path: Path):
    out = mypy(tmp_path, USER.replace("WRONG", "await process.start(process_pb2.WaitRequest())"))
    assert [line.partition("user.py:")[2] for line in out.splitlines()] == [
        '11: note: Revealed type is "int"',
        '14: note: Revealed type is "sandbox_nb.guest.proto.events_pb2.Envelope"',
        '15: error: Argument 1 to "start" of "ProcessClient" has incompatible type "WaitRequest"; '
        'expected "StartRequest"  [arg-type]',
    ]


def services():
    """The generated client and base of each service of the agent."""
    names = [module.name for module in pkgutil.iter_modules(proto.__path__) if module.name.endswith("_ttrpc")]
    modules = [vars(importlib.import_module(f"{proto.__name__}.{name}")) for name in names]
    bases = [(module, name) for module in modules for name in module if name.endswith("Base")]
    return [pytest.param(module[f"{name[:-4]}Client"], module[name], id=name[:-4]) for module, name in bases]


@pytest.mark.parametrize(("client_class", "base_class"), services())
async def test_a_method_that_is_not_overridden_is_unimplemented(client_class, base_class):
    async def call(method, request, client_streams, server_streams):
        said = () if client_streams or request is Empty else (request(),)
        begun = getattr(client_class(client), method)(*said)
        if not server_streams:
            await begun
            return
        async with begun as stream:
            await stream.receive()

    ours, theirs = socket.socketpair()
    async with Server(base_class()) as server, await Client.from_socket(ours) as client:
        await server.attach(theirs)
        for _, *method in base_class.METHODS:
            with pytest.raises(StatusError) as caught:
                await call(*method)
            assert caught.value.code == Code.UNIMPLEMENTED


# The ends of the range that pyproject.toml declares, for the two packages that ttrpc needs.
ENDS = {
    "oldest": ["protobuf==4.25.0", "googleapis-common-protos==1.63.0"],
    "newest": ["protobuf<8", "googleapis-common-protos"],
}


@pytest.mark.parametrize("implementation", ["upb", "python"])
@pytest.mark.parametrize("end", ENDS)
def test_they_work_at_both_ends_of_the_protobuf_range_without_a_warning(
    end: str, implementation: str, packages: dict[str, Path]
):
    environment = {
        "PYTHONPATH": os.pathsep.join(map(str, (packages[end], ROOT))),
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation,
    }
    # -S: no site-packages but those.
    command = [sys.executable, "-S", "-W", "error", "-c", PROGRAM]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("4.25.0" if end == "oldest" else "7.")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packages")
    for end, wanted in ENDS.items():
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", folder / end, *wanted]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            pytest.skip(f"pip cannot install {wanted}: {result.stderr.strip()[-200:]}")
    return {end: folder / end for end in ENDS}
