"""The asyncio server: services, and the sockets they are offered on."""

from __future__ import annotations

import asyncio
import socket
from os import PathLike
from pathlib import Path
from typing import Self

from .connection import MAX_STREAMS
from .listener import Listener, bind
from .server_channel import Registry, Route, ServerChannel
from .service import Method, Service


class Server:
    """Serves any number of services on any number of sockets, in the event loop that it is used in.

    ``max_streams`` is how many calls each client may have open; a further one is RESOURCE_EXHAUSTED.
    """

    def __init__(self, *services: Service, max_streams: int = MAX_STREAMS) -> None:
        self._routes: dict[str, dict[str, Route]] = {}
        self._max_streams = max_streams
        self._listeners: list[Listener] = []
        self._registry = Registry()
        for service in services:
            self.register(service)

    def register(self, service: Service) -> None:
        """Offer a service, also to clients that are connected already. One of each name."""
        if service.SERVICE in self._routes:
            raise ValueError(f"a service named {service.SERVICE} is registered already")
        methods = map(Method._make, service.METHODS)
        self._routes[service.SERVICE] = {
            method.name: Route(getattr(service, method.handler), method) for method in methods
        }

    async def listen(self, where: str | PathLike[str] | socket.socket) -> None:
        """Accept clients at the path of a UNIX socket, which is made, or on a listening socket of any family.

        A socket's file is removed at the end. Raises OSError, as when another server listens at the path.
        """
        self._require_open()
        sock = where if isinstance(where, socket.socket) else bind(Path(where))
        self._listeners.append(Listener(sock, self._channel))

    async def attach(self, sock: socket.socket) -> None:
        """Serve the client at the other end of a connected stream socket, which is then the server's."""
        self._require_open()
        sock.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(self._channel, sock)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Accept nothing more, let the calls under way finish, then end every connection.

        New calls are UNAVAILABLE from here on. Handlers that are not done after ``timeout`` seconds are cancelled,
        and so they are if this itself is cancelled.
        """
        self._registry.is_open = False
        try:
            while self._listeners:
                await self._listeners.pop().aclose()
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(channel.finish() for channel in self._registry.channels))
        except TimeoutError:
            pass
        finally:
            for channel in list(self._registry.channels):
                channel.abort()
                await channel.wait_lost()
                await channel.wait_calls()

    async def aclose(self) -> None:
        """End every connection at once, and cancel the handlers. Any number of times."""
        await self.shutdown(timeout=0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _channel(self) -> ServerChannel:
        return ServerChannel(self._routes, self._max_streams, self._registry)

    def _require_open(self) -> None:
        if not self._registry.is_open:
            raise RuntimeError("this server was shut down; make another")
