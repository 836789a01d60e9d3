"""Has the Jupyter server send a page at once what it has for it. A server extension, on where this is installed.

jupyter_server leaves Nagle's algorithm on for the websocket between page and kernel: a small message waits until
the page has acknowledged the one before, which TCP may put off for 40 ms, and which takes as long as the way there
and back where the page is far away. A key's echo comes 3 ms after the kernel's "busy", so that it always waits.
With TCP_NODELAY its way took a tenth to a third less, with both on one machine, than with what a page can do about
it, which frontend/src/link.ts does where this is not: where the server has another environment than the kernel,
say. All widgets of the server gain by it.

Nothing else is added: no handler, no port. The class of these connections is a thing jupyter_server lets be chosen
(``ServerApp.kernel_websocket_connection_class``); whichever was chosen goes on doing its work.
"""

from __future__ import annotations

from typing import Any

CONNECTION = "kernel_websocket_connection_class"
"""Under which name jupyter_server's handlers look for the class."""

PAGE = "page_config_data"
"""Where JupyterLab and Notebook find what to tell their pages."""


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """What jupyter_server asks a module in which it expects an extension."""
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Change the connections made from now on, and tell pages (frontend/src/server.ts)."""
    settings = server.web_app.settings
    if CONNECTION in settings:  # old servers have no choice
        settings[CONNECTION] = prompt(settings[CONNECTION])
        settings.setdefault(PAGE, {})["sandboxNbPrompt"] = True


def prompt(connection: type[Any]) -> type[Any]:
    """The class ``connection`` of a kernel's websocket, sending at once."""

    class Prompt(connection):  # type: ignore[misc]
        async def connect(self) -> Any:
            self.websocket_handler.set_nodelay(True)
            return await super().connect()

    return Prompt
