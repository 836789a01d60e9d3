"""The host's side of `control`: questions to a running device, over the socket it inherited."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from typing import Any


class Controller:
    """Asks one device; when it closes, the device ends. Belongs to the event loop it asks in."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._input = bytearray()
        self._ids = itertools.count(1)
        self._turn = asyncio.Lock()

    async def ask(self, command: str, *, descriptor: int | None = None, **arguments: Any) -> Any:
        """The device's answer; ``descriptor`` is that of a file, of which it gets a duplicate.

        Raises OSError when it refuses, ConnectionError when it is gone.
        """
        async with self._turn:
            identity = next(self._ids)
            brought = {} if descriptor is None else {"file": True}
            question = json.dumps({"id": identity, "command": command, **brought, **arguments}).encode() + b"\n"
            if descriptor is not None:  # one question is under way, so its first byte finds room
                socket.send_fds(self._socket, [question[:1]], [descriptor])
                question = question[1:]
            await asyncio.get_running_loop().sock_sendall(self._socket, question)
            answer = json.loads(await self._line())
            while answer["id"] != identity:  # that of a question whose asker was cancelled
                answer = json.loads(await self._line())
        if "error" in answer:
            raise OSError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """End the device, if it has not ended. Idempotent."""
        self._socket.close()

    async def _line(self) -> bytes:
        while b"\n" not in self._input:
            data = await asyncio.get_running_loop().sock_recv(self._socket, 64 * 1024)
            if not data:
                raise ConnectionResetError("the vsock device is gone")
            self._input += data
        line, _, rest = bytes(self._input).partition(b"\n")
        self._input = bytearray(rest)
        return line
