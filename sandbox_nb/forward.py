"""Ports and sockets of host and guest joined over streams: through vsock, with no network card in the machine.

Every connection is a stream of its own. Each direction ends by itself, and whoever is slow to read slows its own
connection and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self

from sandbox_nb import streams
from sandbox_nb.errors import InvalidArgument, SandboxError
from sandbox_nb.guest.proto.forward_pb2 import DialRequest, UnbindRequest
from sandbox_nb.guest.proto.forward_ttrpc import ForwardClient
from sandbox_nb.guest.proto.socketforward_pb2 import BindRequest, ConnectRequest, ConnectResult, Socket
from sandbox_nb.guest.proto.socketforward_ttrpc import SocketForwardClient
from sandbox_nb.sockets import accept, connect, join, listen, reset
from sandbox_nb.streams import OpenStream
from sandbox_nb.ttrpc import BidiStream, Client

__all__ = ["AsyncForward", "Forward", "Forwarder", "ends"]

OPENING = 16
"""Streams opened at a time; the agent takes 64 that nobody has claimed, and not all of them are ours."""

CALLERS = 256
"""Connections of a guest to the host that are there at a time: each takes two of the process's descriptors."""

RETRY = 0.1
"""Seconds until connections are taken again when the process has too many files open."""


def ends(port: int | None, target: int | str) -> tuple[str, str]:
    """The two ends of a forward in words; ``port`` and ``target`` as AsyncForward has them."""
    place = f"port {target}" if isinstance(target, int) else target
    if port is None:
        return "a socket of the guest", f"the host's {place}"
    return f"127.0.0.1:{port}", f"the guest's {place}"


class AsyncForward:
    """Something that listens, on one side, for what is on the other; as a block, until its end.

    ``port`` is where the host listens, on 127.0.0.1; None when it is the guest that does. ``target`` is where the
    connections end: a TCP port of the other side's loopback, or the path of a UNIX socket there. ``failure`` is
    why the last of the connections that could not be made could not; ``closed`` is whether it has ended.
    """

    def __init__(self, target: int | str, port: int | None, end: Callable[[], Awaitable[None]]) -> None:
        self.target = target
        self.port = port
        self.failure: Exception | None = None
        self._end = end
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed = False

    async def close(self) -> None:
        """Stop listening, and end the connections that are there. Idempotent."""
        if self.closed:
            return
        self.closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __str__(self) -> str:
        return " to ".join(ends(self.port, self.target)) + (", closed" if self.closed else "")

    def __repr__(self) -> str:
        return f"<AsyncForward from {self}>"

    def _begin(self, work: Coroutine[Any, Any, None], *, then: Callable[[], None]) -> None:
        """Start work that ends with the forward; ``then`` is called at its end, even if it never gets to run."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: then())


class Forward:
    """An AsyncForward for people who do not await."""

    def __init__(self, forward: AsyncForward, wait: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._forward = forward
        self._wait = wait

    @property
    def port(self) -> int | None:
        """Where the host listens, on 127.0.0.1; None when it is the guest that does."""
        return self._forward.port

    @property
    def target(self) -> int | str:
        """Where the connections end: a TCP port of the other side's loopback, or the path of a UNIX socket."""
        return self._forward.target

    @property
    def failure(self) -> Exception | None:
        """Why the last connection that could not be made could not."""
        return self._forward.failure

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._forward.closed

    def close(self) -> None:
        """Stop listening, and end the connections that are there. Idempotent."""
        self._wait(self._forward.close())

    def __repr__(self) -> str:
        return f"<Forward from {self._forward}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Forwarder:
    """All that is forwarded to and from one machine."""

    def __init__(self, client: Client, open_stream: OpenStream) -> None:
        self._forward = ForwardClient(client)
        self._sockets = SocketForwardClient(client)
        self._open_stream = open_stream
        self._opening = asyncio.Semaphore(OPENING)
        self._forwards: set[AsyncForward] = set()
        self._bound: dict[str, AsyncForward] = {}
        self._accepting: asyncio.Task[None] | None = None
        self._callers = 0
        self._machine_ends = False

    async def forward(self, host_port: int, target: int | str) -> AsyncForward:
        """Listen on a port of the host's loopback (0: a free one) for what listens in the guest at ``target``.

        Raises InvalidArgument for what is no port or absolute path, AlreadyExists when the port is taken.
        """
        _check_target(target)
        listener = listen(host_port)

        async def end() -> None:
            self._forwards.discard(forward)

        forward = AsyncForward(target, listener.getsockname()[1], end)
        self._forwards.add(forward)
        forward._begin(self._serve(forward, listener), then=listener.close)
        return forward

    async def forward_socket(self, path: str, target: int | str) -> AsyncForward:
        """Have the guest listen on a UNIX socket for what listens on the host at ``target``.

        Raises InvalidArgument, AlreadyExists or NotFound as the guest refuses the path.
        """
        _check_target(target)
        identity = f"f-{secrets.token_hex(8)}"

        async def end() -> None:
            self._forwards.discard(forward)
            del self._bound[identity]
            if not self._machine_ends:
                # One that failed has taken the socket with it.
                with contextlib.suppress(SandboxError):
                    await self._forward.unbind(UnbindRequest(forward_id=identity))

        forward = AsyncForward(target, None, end)
        await self._sockets.bind(BindRequest(sockets=[Socket(forward_id=identity, socket_path=path)]))
        self._bound[identity] = forward
        self._forwards.add(forward)
        if self._accepting is None or self._accepting.done():
            self._accepting = asyncio.create_task(self._accept())
        return forward

    @property
    def forwards(self) -> list[AsyncForward]:
        """What is forwarded now, by the host's ports; those that the guest listens for last."""
        return sorted(self._forwards, key=lambda forward: forward.port or 1 << 16)

    async def port_of(self, target: int) -> int:
        """A port of the host that leads to a port of the guest: of a forward that is there, or a new one."""
        for forward in self._forwards:
            if forward.port is not None and forward.target == target:
                return forward.port
        made = (await self.forward(0, target)).port
        assert made is not None
        return made

    async def close(self) -> None:
        """End all of them, with the machine."""
        self._machine_ends = True
        await asyncio.gather(*(forward.close() for forward in list(self._forwards)))
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)

    # Host to guest

    async def _serve(self, forward: AsyncForward, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = await accept(listener)
            except OSError:
                await asyncio.sleep(RETRY)
            else:
                forward._begin(self._dial(forward, connection), then=connection.close)

    async def _dial(self, forward: AsyncForward, connection: socket.socket) -> None:
        try:
            # A write is all there is for now, and not to be kept back until the last was acknowledged.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with self._opening:
                stream = await self._joined_stream(forward.target)
        except (SandboxError, OSError) as error:
            forward.failure = error
            reset(connection)
            return
        await join(connection, stream)

    async def _joined_stream(self, target: int | str) -> socket.socket:
        identity = streams.new_id()
        stream = await self._open_stream(identity)
        request = DialRequest(stream=streams.name(identity))
        if isinstance(target, int):
            request.port = target
        else:
            request.path = target
        try:
            await self._forward.dial(request)
        except BaseException:
            stream.close()
            raise
        return stream

    # Guest to host

    async def _accept(self) -> None:
        """Take connections of the guest for as long as it tells of them; then nothing is forwarded any more."""
        why = None
        try:
            async with self._sockets.accept() as call:
                async for request in call:
                    forward = self._bound.get(request.forward_id)
                    if forward is None or forward.closed:
                        await call.send(ConnectResult(stream_id=request.stream_id, error="it has just ended"))
                    elif self._callers >= CALLERS:
                        error = f"{CALLERS} connections to the host are there already"
                        await call.send(ConnectResult(stream_id=request.stream_id, error=error))
                    else:
                        self._callers += 1
                        forward._begin(self._answer(forward, call, request), then=self._caller_gone)
        except SandboxError as error:
            why = error
        self._accepting = None  # who binds a socket from now on begins anew
        for forward in list(self._bound.values()):
            forward.failure = why or forward.failure
            await forward.close()

    def _caller_gone(self) -> None:
        self._callers -= 1

    async def _answer(
        self,
        forward: AsyncForward,
        call: BidiStream[ConnectResult, ConnectRequest],
        request: ConnectRequest,
    ) -> None:
        try:
            connection = await connect(forward.target)
        except OSError as error:
            forward.failure = error
            with contextlib.suppress(SandboxError):
                await call.send(ConnectResult(stream_id=request.stream_id, error=str(error)))
            return
        with connection:
            try:
                await call.send(ConnectResult(stream_id=request.stream_id))
                async with self._opening:
                    stream = await self._open_stream(request.stream_id)
            except SandboxError as error:
                forward.failure = error
                return
            await join(connection, stream)


def _check_target(target: int | str) -> None:
    if isinstance(target, int) and not isinstance(target, bool) and 0 < target < 65536:
        return
    if isinstance(target, str) and target.startswith("/"):
        return
    raise InvalidArgument(f"{target!r} is neither a port, 1 to 65535, nor the absolute path of a socket")
