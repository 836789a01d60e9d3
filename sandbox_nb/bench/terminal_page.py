"""A private Jupyter server and a browser without a window: for the terminal's measurements, and its tests."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sandbox_nb.bench import Skipped

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

NOTIFICATIONS = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
"""Where JupyterLab's settings say whether it may ask for news, which it would do over the notebook."""

WITHOUT_WIRES = "--ServerApp.jpserver_extensions=sandbox_nb.notebook.server=False"
"""The option of a server that is to do without our extension, so that terminals take the comm."""

START_TIMEOUT = 60.0
"""Seconds for a server to answer, or for a notebook to be ready, on a machine that is busy."""

# Resolves when the notebook in front has an idle kernel. JupyterLab and Notebook both offer the application.
_READY = """async () => {
    while (!window.jupyterapp) await new Promise(done => setTimeout(done, 50));
    await window.jupyterapp.restored;
    for (;;) {
        const panel = window.jupyterapp.shell.currentWidget;
        if (panel?.sessionContext) {
            await panel.context.ready;
            await panel.sessionContext.ready;
            const kernel = panel.sessionContext.session?.kernel;
            if (kernel) await kernel.info;
            if (kernel?.status === 'idle') return;
        }
        await new Promise(done => setTimeout(done, 50));
    }
}"""

_RUN = """async index => {
    const panel = window.jupyterapp.shell.currentWidget;
    panel.content.activeCellIndex = index;
    await window.jupyterapp.commands.execute('notebook:run-cell');
}"""


class Server:
    """JupyterLab or Notebook on a port of the loopback, with a token and folders of its own.

    ``app`` is the module to run, "jupyterlab" or "notebook". A context manager; its end is the server's.
    """

    def __init__(
        self, app: str = "jupyterlab", *, options: Sequence[str] = (), env: Mapping[str, str] | None = None
    ):
        self.app = app
        self.token = secrets.token_hex(16)
        self._options = options
        self._extra_env = env or {}
        self._home = tempfile.TemporaryDirectory(prefix="sandbox_nb-jupyter-")
        self.root = Path(self._home.name, "notebooks")
        self.root.mkdir()
        settings = Path(self._home.name, "settings", NOTIFICATIONS)
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
        self.log = Path(self._home.name, "log")
        self.address = ""

    def __enter__(self) -> Self:
        try:
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(self._command(), env=self._env(), stdout=log, stderr=log)
        except BaseException:
            self._home.cleanup()
            raise
        try:
            self._await()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._home.cleanup()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def write(self, name: str, cells: Sequence[str]) -> None:
        """Make a notebook of these code cells."""
        (self.root / name).write_text(
            json.dumps(
                {
                    "nbformat": 4,
                    "nbformat_minor": 5,
                    "metadata": {
                        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
                    },
                    "cells": [
                        {
                            "cell_type": "code",
                            "id": f"cell-{index}",
                            "source": source,
                            "metadata": {},
                            "outputs": [],
                            "execution_count": None,
                        }
                        for index, source in enumerate(cells)
                    ],
                }
            )
        )

    def url(self, name: str) -> str:
        """Where a browser finds this notebook, with nothing else that JupyterLab would open again beside it."""
        workspace = secrets.token_hex(4)
        path = f"lab/workspaces/{workspace}/tree" if self.app == "jupyterlab" else "notebooks"
        return f"{self.address}{path}/{name}?token={self.token}"

    def api(self, path: str, method: str = "GET") -> Any:
        """Call the server's REST interface and return what it answers, None when that is nothing."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.address}api/{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            body = response.read()
        return json.loads(body) if body else None

    def _command(self) -> list[str]:
        trait = "LabApp" if self.app == "jupyterlab" else "JupyterNotebookApp"
        shell = json.dumps({"shell_command": ["/bin/sh", "-i"]})
        options = [
            "--no-browser",
            "--allow-root",
            "--ServerApp.ip=127.0.0.1",
            "--ServerApp.port=0",
            f"--ServerApp.root_dir={self.root}",
            f"--ServerApp.terminado_settings={shell}",
            f"--IdentityProvider.token={self.token}",
            f"--{trait}.expose_app_in_browser=True",
        ]
        return [sys.executable, "-m", self.app, *options, *self._options]

    def _env(self) -> dict[str, str]:
        kinds = ("CONFIG", "DATA", "RUNTIME")
        own = {f"JUPYTER_{kind}_DIR": str(Path(self._home.name, kind.lower())) for kind in kinds}
        own |= {
            f"JUPYTERLAB_{kind}_DIR": str(Path(self._home.name, kind.lower()))
            for kind in ("SETTINGS", "WORKSPACES")
        }
        own["IPYTHONDIR"] = str(Path(self._home.name, "ipython"))
        # A package that is not installed but run from its folder is found by the kernel too.
        own["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        return {**os.environ, **own, **self._extra_env}

    def _await(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        runtime = Path(self._home.name, "runtime")
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError, ValueError, StopIteration):
                info = json.loads(next(runtime.glob("jpserver-*.json")).read_text())
                self.address = info["url"]
                self.api("status")
                return
            time.sleep(0.1)
        raise Skipped(f"the Jupyter server did not start:\n{self.log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium without a window. Raises Skipped when there is none, or no playwright to drive it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise Skipped("it needs playwright: pip install playwright") from error
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise Skipped("it needs a Chromium on the PATH")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, headless=True, args=list(FLAGS))
        try:
            yield chromium
        finally:
            chromium.close()


def open_notebook(page: Page, server: Server, name: str) -> None:
    """Show a notebook and wait until its kernel is idle."""
    page.goto(server.url(name))
    page.evaluate(_READY)


def run_cell(page: Page, index: int, *, wait: bool = True) -> None:
    """Run the cell of this number in the notebook in front; with ``wait``, to its end."""
    if wait:
        page.evaluate(_RUN, index)
    else:
        page.evaluate(f"index => {{ ({_RUN})(index); }}", index)
