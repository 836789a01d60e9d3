"""How fast calls are: our ttrpc, side by side with grpcio's asyncio, each with a server in a process of its own.

Both echo a ``BytesValue`` of 1 KiB over a UNIX socket, unary; they take turns, and a ratio is of two neighbours.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.wrappers_pb2 import BytesValue, Int64Value

from sandbox_nb.bench import Row, Skipped
from sandbox_nb.ttrpc import Client, Context, Method, Server

NAMES = (
    "ttrpc_latency_us",
    "ttrpc_rate_64",
    "grpcio_latency_us",
    "grpcio_rate_64",
    "ttrpc_latency_ratio",
    "ttrpc_rate_ratio",
    "ttrpc_stream_mb_s",
)

ROUNDS = 11
CALLS = 400
IN_FLIGHT = 64
MESSAGE_SIZE = 64 << 10
MESSAGES = 1000

_SERVICE = "sandbox_nb.bench.v1.Bench"
_PAYLOAD = BytesValue(value=bytes(1024))

Echo = Callable[[BytesValue], Awaitable[BytesValue]]


def rows() -> dict[str, Row]:
    """Measure all rows."""
    grpc = _grpc()
    with (
        tempfile.TemporaryDirectory() as folder,
        _server("ttrpc", folder) as ours,
        _server("grpcio", folder) as theirs,
    ):
        return asyncio.run(_measure(grpc, ours, theirs))


def _grpc() -> Any:
    """Return the package grpc, which is not typed."""
    try:
        importlib.import_module("grpc.aio")
    except ImportError:
        raise Skipped("grpcio, which ours is held against, is not there: pip install grpcio") from None
    return importlib.import_module("grpc")


async def _measure(grpc: Any, ours: Path, theirs: Path) -> dict[str, Row]:
    async with await Client.connect(ours) as client, grpc.aio.insecure_channel(f"unix:{theirs}") as channel:

        async def ttrpc_echo(message: BytesValue) -> BytesValue:
            return await client.call(_SERVICE, "Echo", message, BytesValue)

        grpc_echo = channel.unary_unary(
            f"/{_SERVICE}/Echo",
            request_serializer=BytesValue.SerializeToString,
            response_deserializer=BytesValue.FromString,
        )
        for echo in (ttrpc_echo, grpc_echo):
            await _rate(echo)
        rounds = [
            (
                await _latency(ttrpc_echo),
                await _latency(grpc_echo),
                await _rate(ttrpc_echo),
                await _rate(grpc_echo),
                await _stream(client),
            )
            for _ in range(ROUNDS)
        ]
    latencies, grpc_latencies, rates, grpc_rates, streams = zip(*rounds, strict=True)
    return {
        "ttrpc_latency_us": Row.of(latencies, "µs"),
        "ttrpc_rate_64": Row.of(rates, "1/s"),
        "grpcio_latency_us": Row.of(grpc_latencies, "µs"),
        "grpcio_rate_64": Row.of(grpc_rates, "1/s"),
        "ttrpc_latency_ratio": Row.of([a / b for a, b in zip(latencies, grpc_latencies, strict=True)], "ratio"),
        "ttrpc_rate_ratio": Row.of([a / b for a, b in zip(rates, grpc_rates, strict=True)], "ratio"),
        "ttrpc_stream_mb_s": Row.of(streams, "MB/s"),
    }


async def _latency(echo: Echo) -> float:
    """Return what a call takes, one after the other, in µs."""
    began = time.perf_counter()
    for _ in range(CALLS):
        await echo(_PAYLOAD)
    return (time.perf_counter() - began) / CALLS * 1e6


async def _rate(echo: Echo) -> float:
    """Return calls per second, with 64 in flight all the time."""

    async def caller() -> None:
        for _ in range(CALLS // 10):
            await echo(_PAYLOAD)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return IN_FLIGHT * (CALLS // 10) / (time.perf_counter() - began)


async def _stream(client: Client) -> float:
    """Return MB per second of a server stream."""
    began = time.perf_counter()
    size = 0
    async with client.server_stream(_SERVICE, "Flood", Int64Value(value=MESSAGES), BytesValue) as stream:
        async for message in stream:
            size += len(message.value)
    return size / (time.perf_counter() - began) / 1e6


class _Bench:
    SERVICE = _SERVICE
    METHODS = (
        Method("Echo", "echo", BytesValue),
        Method("Flood", "flood", Int64Value, server_streams=True),
    )

    async def echo(self, request: BytesValue, _context: Context) -> BytesValue:
        return request

    async def flood(self, request: Int64Value, _context: Context) -> AsyncIterator[BytesValue]:
        message = BytesValue(value=bytes(MESSAGE_SIZE))
        for _ in range(request.value):
            yield message


@contextlib.contextmanager
def _server(kind: str, folder: str) -> Iterator[Path]:
    """Run a server in a process of its own; yield its socket once it accepts."""
    path = Path(folder, kind)
    process = subprocess.Popen([sys.executable, "-m", __name__, kind, path], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield path
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


async def _serve(kind: str, path: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        if kind == "ttrpc":
            server = await stack.enter_async_context(Server(_Bench()))
            await server.listen(path)
        else:
            stack.push_async_callback((await _grpc_server(path)).stop, None)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await stop.wait()


async def _grpc_server(path: str) -> Any:
    async def echo(request: BytesValue, _context: object) -> BytesValue:
        return request

    grpc = _grpc()
    handler = grpc.unary_unary_rpc_method_handler(
        echo, request_deserializer=BytesValue.FromString, response_serializer=BytesValue.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, {"Echo": handler})])
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    return server


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
