"""Terminals in kernels of other versions while a cell runs: alive by the wire, or by the comm with subshells."""

from __future__ import annotations

import pytest
from lab import skipping
from support import path_with

from sandbox_nb.bench.terminal_page import WITHOUT_WIRES, Server

from .conftest import Notebook

pytestmark = [pytest.mark.browser, pytest.mark.soak]

BUSY = "The kernel is busy"


WITH_SUBSHELLS = ["7.0.1", "7.1.0", "7.2.0", "7.3.0", "7.4.0"]
WITHOUT_SUBSHELLS = ["6.29.0", "6.29.5", "6.30.1", "6.31.0"]


def by(way, versions):
    """The fixture ``notebook`` in turn with each of these versions of ipykernel, by the wire or by the comm."""
    options = [] if way == "wire" else [WITHOUT_WIRES]
    return pytest.mark.parametrize(
        "notebook", [(version, options) for version in versions], indirect=True, ids=versions
    )


@pytest.fixture
def notebook(request, chromium, tmp_path):
    """A notebook with a kernel of the version, in a server with the options, that are the test's parameter."""
    version, options = request.param
    packages = [f"ipykernel=={version}"]
    if version.startswith("6."):
        packages.append("nest-asyncio")
    path = path_with(packages, tmp_path)
    with skipping(), Server(options=options, env={"PYTHONPATH": path}) as server:
        page = chromium.new_page(viewport={"width": 1200, "height": 900})
        notebook = Notebook(server, page, "kernel.ipynb")
        notebook.run("import ipykernel; print('version', ipykernel.__version__)")
        notebook.see_output(f"version {version}")
        yield notebook
        page.close()


def begin(notebook):
    notebook.run("t = Terminal(shell())\nt")
    notebook.see(r"^\$")
    notebook.type('echo fi""rst\n')
    notebook.see("^first")
    notebook.run("t.scrollback = 100; time.sleep(6)", cell=2, wait=False)
    notebook.page.wait_for_timeout(500)
    notebook.type('echo sec""ond\n')


@by("wire", [WITHOUT_SUBSHELLS[0], WITHOUT_SUBSHELLS[-1], WITH_SUBSHELLS[0], WITH_SUBSHELLS[-1]])
def test_by_the_wire_it_is_alive_while_a_cell_runs(notebook):
    begin(notebook)
    notebook.see("^second", timeout=5)
    assert notebook.page.locator(".jp-InputPrompt", has_text="[*]").count() == 1
    assert notebook.page.locator(".sandbox-nb-notice").is_hidden()
    assert notebook.errors == []


@by("wire", [WITHOUT_SUBSHELLS[-1]])
def test_by_the_wire_it_is_alive_when_it_is_first_seen_while_a_cell_runs(notebook):
    notebook.run("t = Terminal(shell())\nt", wait=False)
    notebook.run("time.sleep(20)", cell=2, wait=False)
    notebook.see(r"^\$", timeout=15)
    notebook.type('echo fi""rst\n')
    notebook.see("^first", timeout=5)
    assert notebook.page.locator(".jp-InputPrompt", has_text="[*]").count() == 1
    assert notebook.page.locator(".sandbox-nb-notice").is_hidden()
    assert notebook.errors == []


@by("comm", WITH_SUBSHELLS)
def test_with_subshells_it_is_alive_while_a_cell_runs(notebook):
    begin(notebook)
    notebook.see("^second", timeout=5)
    assert notebook.page.locator(".jp-InputPrompt", has_text="[*]").count() == 1
    assert notebook.errors == []


@by("comm", WITHOUT_SUBSHELLS)
def test_without_them_it_says_so_and_catches_up_after_the_cell(notebook):
    begin(notebook)
    notice = notebook.page.locator(".sandbox-nb-notice")
    notice.get_by_text(BUSY).wait_for(timeout=5000)
    notebook.see("^second")
    notice.wait_for(state="hidden")
    assert notebook.errors == []
