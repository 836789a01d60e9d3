"""Joins pages and terminals by the short way (terminal_wire.py). A server extension, on where this is installed.

It adds one address, a websocket for each view of a terminal, and hands frames over between it and the Unix socket
of the terminal's kernel, without a look into them. Who may use a kernel may use it; nobody else. Where server and
kernel are not on one machine, or not the same user's, there is no such socket, and pages go on with the comm.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.utils import url_path_join
from tornado import web
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from sandbox_nb.notebook.terminal_wire import LENGTH, address, is_ours

PATH = r"/sandbox-nb/kernels/([\w-]+)/terminals/([0-9a-f]+)"
"""Where a page calls; frontend/src/wire.ts has it too."""

PAGE = "page_config_data"
"""Where JupyterLab and Notebook find what to tell their pages."""


class TerminalHandler(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """One view's wire: what the page says goes to the terminal of this name, and back."""

    auth_resource = "kernels"

    def set_default_headers(self) -> None:
        """Nothing: JupyterHandler's are for what is no websocket."""

    @ws_authenticated
    async def get(self, kernel_id: str, name: str) -> None:
        """Be a websocket until it is closed; 403 for who may not use kernels, 404 where no such terminal is."""
        if not await ensure_async(self.authorizer.is_authorized(self, self.current_user, "execute", "kernels")):
            raise web.HTTPError(403)
        self._kernel: Any = self.kernel_manager.get_kernel(kernel_id)
        self._frames, self._terminal = await _call(name)
        try:
            await super().get()
        finally:
            self._terminal.close()

    async def open(self) -> None:
        """Begin to hand on, and the pings that keep proxies from closing us."""
        super().open()
        self.set_nodelay(True)
        self._relay = asyncio.create_task(self._hand_on())

    async def on_message(self, frame: str | bytes) -> None:
        """Hand a frame to the terminal, at its speed, and note that server and kernel are used."""
        if isinstance(frame, str):
            self.close(1003, "a terminal speaks in bytes")
            return
        self._kernel.last_activity = self.settings["last_activity_times"]["sandbox_nb"] = datetime.now(UTC)
        with contextlib.suppress(ConnectionError):  # the relay sees it too
            self._terminal.write(LENGTH.pack(len(frame)) + frame)
            await self._terminal.drain()

    async def _hand_on(self) -> None:
        """Hand the terminal's frames to the page.

        Not at the page's speed: a terminal that waited for us would not hear the keys that are to stop it. What a
        page has not acknowledged is bounded where it is sent (terminal_flow.py), and so is what is kept here.
        """
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, WebSocketClosedError):
            while True:
                (length,) = LENGTH.unpack(await self._frames.readexactly(LENGTH.size))
                sent = self.write_message(await self._frames.readexactly(length), binary=True)
                sent.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen elsewhere
        self.close()


async def _call(name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a terminal. Raises HTTPError where there is none."""
    try:
        reader, writer = await asyncio.open_unix_connection(address(name))
    except OSError:
        raise web.HTTPError(404, "no terminal of this name on this machine") from None
    if not is_ours(writer.get_extra_info("socket")):
        writer.close()
        raise web.HTTPError(404, "the terminal of this name is another user's")
    return reader, writer


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """What jupyter_server asks a module in which it expects an extension."""
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Add our address, and tell the pages to come (frontend/src/server.ts)."""
    app = server.web_app
    app.add_handlers(".*", [(url_path_join(app.settings["base_url"], PATH), TerminalHandler)])
    app.settings.setdefault(PAGE, {})["sandboxNbWire"] = True
