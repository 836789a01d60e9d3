"""A notebook in a real JupyterLab in a real browser, for the tests of widgets."""

from __future__ import annotations

import contextlib
import time

import pytest

from sandbox_nb.bench import Skipped
from sandbox_nb.bench.terminal_page import Server, browser, open_notebook, run_cell

_SET_CELL = """([index, code]) => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.widgets[index].model.sharedModel.setSource(code);
}"""

# Not awaited: the command ends when its question is answered.
_RESTART = "() => { window.jupyterapp.commands.execute('kernelmenu:restart'); }"

_DOCUMENT = "() => JSON.stringify(window.jupyterapp.shell.currentWidget.model.toJSON())"


class Notebook:
    """A notebook of some empty cells in a page, whose kernel has run the prelude."""

    def __init__(self, server, page, name, *, cells=4, prelude="%load_ext sandbox_nb"):
        self.server, self.page, self.name = server, page, name
        self.errors = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        server.write(name, [prelude] + [""] * cells)
        open_notebook(page, server, name)
        run_cell(page, 0)

    def run(self, code, *, cell=1, wait=True):
        """Run this code in a cell; what the cell showed before is gone."""
        self.page.evaluate(_SET_CELL, [cell, code])
        run_cell(self.page, cell, wait=wait)

    def output(self, cell=1):
        """The outputs of a cell."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".jp-OutputArea")

    def restart_kernel(self):
        """Restart the kernel, as one does by the menu."""
        self.page.evaluate(_RESTART)
        self.page.locator(".jp-Dialog .jp-mod-accept").click()

    def document(self):
        """The notebook as it would be saved, as JSON."""
        return self.page.evaluate(_DOCUMENT)


@contextlib.contextmanager
def skipping():
    """What a measurement would be left out for, a test is skipped for."""
    try:
        yield
    except Skipped as reason:
        pytest.skip(str(reason))


@contextlib.contextmanager
def opened(name):
    """A notebook with a page and a server of its own."""
    with skipping(), browser() as chromium, Server("jupyterlab") as server:
        yield Notebook(server, chromium.new_page(viewport={"width": 1200, "height": 1400}), name)


def until(condition, seconds=30):
    """Wait until ``condition()`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
