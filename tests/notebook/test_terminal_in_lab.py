"""A terminal on a real machine, in a real JupyterLab, in a real browser."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import sync_playwright

pytestmark = [pytest.mark.vm, pytest.mark.browser, pytest.mark.timeout(240)]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TOKEN = "test"
SETTINGS = '{"fetchNews": "false", "checkForUpdates": false}'


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab of the test's own, and the folder it shows."""
    folder = tmp_path / "work"
    folder.mkdir()
    notification = (
        tmp_path / "config/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    )
    notification.parent.mkdir(parents=True)
    notification.write_text(SETTINGS)
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
    }
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", f"--ServerApp.token={TOKEN}"]
    with (tmp_path / "lab.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *flags, f"--ServerApp.root_dir={folder}"],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until_up(f"http://127.0.0.1:{port}/api?token={TOKEN}")
        yield f"http://127.0.0.1:{port}", folder
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


def wait_until_up(url):
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url):
                return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@pytest.fixture
def page():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", headless=True, args=FLAGS)
        yield browser.new_page(viewport={"width": 1200, "height": 900})
        browser.close()


def open_and_run(lab, page, *cells):
    """Open a notebook of these cells and run all of them."""
    address, folder = lab
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(notebook, folder / "test.ipynb")
    page.goto(f"{address}/lab/tree/test.ipynb?token={TOKEN}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle", timeout=60_000)
    page.click("text=Run >> nth=0")
    page.click("text=Run All Cells")


def see(page, text, timeout=30):
    """Wait until the terminal shows ``text``; return all it shows."""
    deadline = time.monotonic() + timeout
    while True:
        shown = page.inner_text(".xterm-rows").replace("\xa0", " ")
        if text in shown:
            return shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)


def test_type_and_see_the_answer_at_the_size_of_the_widget(lab, page):
    open_and_run(lab, page, "%load_ext sandbox_nb\n%sandbox start", "%sandbox terminal --height 14")
    page.wait_for_selector(".xterm-rows", timeout=60_000)
    see(page, "root@sandbox")
    page.click(".xterm-screen")
    page.keyboard.type("echo $((6 * 7))-$(hostname); stty size\n")
    see(page, "42-sandbox")
    rows = page.locator(".xterm-rows > div").count()
    see(page, f"{rows} ")
    assert rows == 14
    # The program says when it is ready for the key; before, the shell might take it.
    page.keyboard.type("sh -c 'trap \"exit 130\" INT; echo go-$((1 + 1)); while :; do sleep 1; done'\n")
    see(page, "go-2")
    page.keyboard.press("Control+C")
    page.keyboard.type("echo back-$?\n")
    see(page, "back-130")


def test_it_answers_while_a_cell_runs(lab, page):
    cells = ("%load_ext sandbox_nb\n%sandbox start", "%sandbox terminal", "import time; time.sleep(20)")
    open_and_run(lab, page, *cells)
    page.wait_for_selector(".xterm-rows", timeout=60_000)
    see(page, "root@sandbox", timeout=18)
    page.click(".xterm-screen")
    page.keyboard.type("echo $((40 + 2))-alive\n")
    see(page, "42-alive", timeout=18)
    assert page.locator(".jp-InputPrompt", has_text="[*]").count() == 1
