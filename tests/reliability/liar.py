"""An agent that lies: the host's side of a sandbox, whole and real, joined to whatever a test sends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
from contextlib import AsyncExitStack
from pathlib import Path

from sandbox_nb import AsyncSandbox, Options, State, Unavailable, launch
from sandbox_nb.boot import Boot
from sandbox_nb.guest.proto import process_pb2
from sandbox_nb.hardware import Hardware
from sandbox_nb.launch import Running
from sandbox_nb.ttrpc import Client
from sandbox_nb.ttrpc.frames import DATA, REQUEST, RESPONSE
from sandbox_nb.ttrpc.proto.envelope_pb2 import Request, Response
from sandbox_nb.vm.accel import Accelerator

HEADER = struct.Struct(">IIBB")


class NoMachine:
    """What a sandbox asks of its machine, with none behind it."""

    class console:  # noqa: N801 - an attribute's name
        class ring:  # noqa: N801
            last_words = staticmethod(lambda: "console")
            tail = staticmethod(lambda lines: "console")

        hang_up = staticmethod(lambda: None)

    async def wait_gone(self):
        await asyncio.get_running_loop().create_future()

    async def close(self):
        pass


class Liar:
    """Both connections of a guest, in the hands of a test: calls go to ``answer``, streams to ``serve``."""

    alive = True

    def __init__(self, answer, serve):
        self.answer, self.serve = answer, serve
        self.tasks = set()

    def start(self, act, sock, *more):
        self.tasks.add(asyncio.create_task(self._act(act, sock, *more)))

    async def _act(self, act, sock, *more):
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            with contextlib.suppress(ConnectionError):
                await act(reader, writer, *more)
        finally:
            if not writer.is_closing():
                writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def dial(self, port, first=b""):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.start(self.serve, theirs, first)
        return ours

    async def wait_gone(self):
        await asyncio.get_running_loop().create_future()

    async def close(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def lied_to(answer, serve=None):
    """A running sandbox whose agent is ``answer(reader, writer)`` and whose streams are ``serve(…, hello)``."""
    liar = Liar(answer, serve or acknowledge)
    ours, theirs = socket.socketpair()
    liar.start(answer, theirs)
    client = await Client.from_socket(ours, map_error=launch._map_error)
    machine = NoMachine()
    undo = AsyncExitStack()
    undo.push_async_callback(liar.close)
    undo.push_async_callback(client.aclose)
    sandbox = AsyncSandbox("lied-to")
    running = Running(
        machine,
        liar,
        client,
        Hardware(machine, client, sandbox="lied-to"),
        None,
        Boot("cold", Accelerator("tcg", "")),
        Path("/nonexistent"),
        undo,
    )
    sandbox._life.loop = asyncio.get_running_loop()
    sandbox._life.begin(running, Options())
    try:
        yield sandbox
    finally:
        if sandbox.state in (State.RUNNING, State.FAILED):
            await sandbox.stop(timeout=0.1)


# What agents do


def frame(stream, kind, payload, flags=0, length=None):
    return HEADER.pack(len(payload) if length is None else length, stream, kind, flags) + payload


def response(stream, payload=b""):
    return frame(stream, RESPONSE, Response(payload=payload).SerializeToString())


async def requests(reader):
    """The stream ids and payloads of requests as they come."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            length, stream, kind, _ = HEADER.unpack(await reader.readexactly(HEADER.size))
            payload = await reader.readexactly(length)
            if kind == REQUEST:
                yield stream, payload


def saying(*pieces, hold=True):
    """An agent that sends these once it was asked, whatever it was, then stays or goes."""

    async def agent(reader, writer):
        async for stream, _ in requests(reader):
            for piece in pieces:
                writer.write(piece(stream) if callable(piece) else piece)
                await writer.drain()
            if not hold:
                writer.close()
                return

    return agent


def flooding(piece):
    """An agent that sends a piece for ever, from the first request on."""

    async def agent(reader, writer):
        async for stream, _ in requests(reader):
            data = piece(stream)
            while True:
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(0)

    return agent


def random_bytes(seed):
    async def agent(reader, writer):
        source = random.Random(seed)
        async for _ in requests(reader):
            writer.write(source.randbytes(source.randrange(1, 4096)))

    return agent


def mutating(seed):
    """An agent whose answers are right but for a few bytes."""

    async def agent(reader, writer):
        source = random.Random(seed)
        async for stream, _ in requests(reader):
            data = bytearray(response(stream, process_pb2.StartResponse(pid=7).SerializeToString()))
            for _ in range(source.randrange(1, 4)):
                data[source.randrange(len(data))] = source.randrange(256)
            writer.write(bytes(data))

    return agent


def agreeing(pid=7, speaking=None):
    """An agent that says all was done as asked; but of a process only that it speaks, or what it is told to."""
    speaking = speaking or process_pb2.WaitResponse(running=True, unheard=3)

    async def agent(reader, writer):
        async for stream, payload in requests(reader):
            request = Request.FromString(payload)
            if request.method != "Wait":
                writer.write(response(stream, process_pb2.StartResponse(pid=pid).SerializeToString()))
            elif process_pb2.WaitRequest.FromString(request.payload).or_output:
                writer.write(response(stream, speaking.SerializeToString()))

    return agent


AGENTS = {
    "goes at once": saying(hold=False),
    "never answers": saying(),
    "answers with nothing": saying(response),
    "answers no protobuf": saying(lambda stream: frame(stream, RESPONSE, b"\xff" * 100)),
    "answers a protobuf of another kind": saying(lambda stream: response(stream, b"\x0a\x7f" + b"x" * 127)),
    "answers twice": saying(lambda stream: response(stream) * 2),
    "answers what nobody asked": saying(lambda stream: response(stream + 1000)),
    "answers even ids": saying(lambda stream: response(stream + 1)),
    "says a length of 4 GiB": saying(lambda stream: frame(stream, RESPONSE, b"x", length=0xFFFF_FFFF)),
    "says more than it sends": saying(lambda stream: frame(stream, RESPONSE, b"x", length=1000)),
    "stops within a header": saying(lambda stream: b"\0" * 5),
    "sends data where a response is due": saying(lambda stream: frame(stream, DATA, b"x" * 100)),
    "sends requests": saying(lambda stream: frame(stream, REQUEST, b"x" * 100)),
    "sends types there are not": saying(lambda stream: frame(stream, 200, b"x", flags=0xFF)),
    "sends another's greeting": saying(b"HTTP/1.1 200 OK\r\n\r\n"),
    "floods with answers nobody asked": flooding(lambda stream: response(stream + 2000, b"x" * 65536)),
    "floods with huge frames": flooding(lambda stream: frame(stream, DATA, b"x" * (8 << 20))),
    "floods with empty frames": flooding(lambda stream: frame(stream, DATA, b"") * 1000),
    "floods with data": flooding(lambda stream: frame(stream, DATA, b"x" * 65536)),
    **{f"random bytes {seed}": random_bytes(seed) for seed in range(8)},
    **{f"changed bytes {seed}": mutating(seed) for seed in range(8)},
}


# What streams do: the host wrote the id behind its length, and is owed the same


async def acknowledge(reader, writer, hello):
    """Take the stream as asked, and whatever comes over it."""
    writer.write(hello)
    with contextlib.suppress(ConnectionError):
        while await reader.read(1 << 16):
            pass


def talking(*pieces):
    async def serve(reader, writer, hello):
        for piece in pieces:
            writer.write(piece(hello) if callable(piece) else piece)
        writer.close()

    return serve


async def endless(reader, writer, hello):
    """Take the stream and never stop."""
    writer.write(hello)
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()


async def silent(reader, writer, hello):
    await asyncio.get_running_loop().create_future()


async def endless_entries(reader, writer, hello):
    """Take the stream and list a folder without end."""
    name = b"\x12\x04name"
    writer.write(hello)
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write((struct.pack(">I", len(name)) + name) * 1000)
            await writer.drain()


STREAMS = {
    "refuses without end": talking(struct.pack(">I", 0xFFFF_FFFF), b"x" * 8192),
    "refuses in words": talking(struct.pack(">I", 4), b"no!!"),
    "acknowledges another id": talking(struct.pack(">I", 5), b"other"),
    "goes at once": talking(),
    "stops within its answer": talking(b"\0\0"),
    "says nothing": silent,
    "never stops": endless,
    "lists without end": endless_entries,
    "sends a record of 4 GiB": talking(lambda hello: hello, struct.pack(">I", 0xFFFF_FFFF), b"x" * 100),
    "sends a name that is a path": talking(lambda hello: hello, b"\0\0\0\x06\x12\x04../x"),
    "ends early": talking(lambda hello: hello, b"\0\0\0\x06"),
    "sends random bytes": talking(lambda hello: hello, os.urandom(4096)),
}


VERBS = {
    "run": lambda sandbox: sandbox.run("true"),
    "run with input": lambda sandbox: sandbox.run("cat", input=b"x" * (1 << 20)),
    "info": lambda sandbox: sandbox.info(),
    "read": lambda sandbox: sandbox.read("/etc/passwd"),
    "write": lambda sandbox: sandbox.write("/x", b"y" * (1 << 20)),
    "stat": lambda sandbox: sandbox.stat("/"),
    "listdir": lambda sandbox: sandbox.listdir("/"),
    "mkdir": lambda sandbox: sandbox.mkdir("/x"),
    "remove": lambda sandbox: sandbox.remove("/x"),
    "events": lambda sandbox: first_events(sandbox),
    "stream": lambda sandbox: sandbox.start_stream("mine"),
    "detach": lambda sandbox: sandbox.detach("nothing"),
    "forward_socket": lambda sandbox: sandbox.forward_socket("/run/x", 9),
    "stats": lambda sandbox: sandbox.stats(processes=True),
}


async def first_events(sandbox):
    async with sandbox.events() as events:
        async for _ in events:
            pass


async def tried(sandbox, verb, patience=0.3):
    """How a verb ends: an error, a result, or TimeoutError when it waits, as it may, and is cancelled."""
    try:
        async with asyncio.timeout(patience):
            result = await VERBS[verb](sandbox)
            if verb == "stream":
                result[1].close()
    except Exception as error:
        return error
    return None


__all__ = ["AGENTS", "STREAMS", "VERBS", "Unavailable", "agreeing", "endless", "lied_to", "tried"]
