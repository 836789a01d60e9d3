"""JupyterLab and Notebook in a real browser, and what is to be seen in a terminal there."""

from __future__ import annotations

import contextlib
import re
import time

import pytest
from lab import Notebook as InPage
from lab import skipping

from sandbox_nb.bench.terminal_page import WITHOUT_WIRES, Server, browser

from .room import Room

TIMEOUT = 60
"""Seconds to wait for what should be seen at once, on a machine that is busy."""

PRELUDE = """
import os, sys, time
from sandbox_nb.notebook.terminal import Terminal
from sandbox_nb.notebook.terminal_source import LocalPty
os.environ["PS1"] = "$ "
def python(code):
    return LocalPty([sys.executable, "-c", code])
def shell():
    return LocalPty(["sh", "-i"])
"""

# The text of the n-th terminal of the page, long lines as one.
_TEXT = """n => {
    const terminal = document.querySelectorAll('.sandbox-nb-terminal')[n]?.terminal;
    if (!terminal) return '';
    const buffer = terminal.buffer.active, lines = [];
    for (let i = 0; i < buffer.length; i++) {
        const line = buffer.getLine(i), text = line.translateToString(!buffer.getLine(i + 1)?.isWrapped);
        if (line.isWrapped && lines.length) lines[lines.length - 1] += text; else lines.push(text);
    }
    return lines.join('\\n').trimEnd();
}"""

# The rows of the first terminal's screen, without the empty ones at its end.
_SCREEN = """() => {
    const terminal = document.querySelector('.sandbox-nb-terminal')?.terminal, buffer = terminal?.buffer.active;
    if (!terminal) return [];
    const rows = Array.from({length: terminal.rows}, (_, row) =>
        buffer.getLine(buffer.baseY + row).translateToString().trimEnd());
    while (rows.at(-1) === '') rows.pop();
    return rows;
}"""

_PASTE = """text => {
    const data = new DataTransfer();
    data.setData('text/plain', text);
    const event = new ClipboardEvent('paste', {clipboardData: data, bubbles: true});
    document.activeElement.dispatchEvent(event);
}"""


# Keeps the wires that are laid from now on, and counts the messages of each kind that they take; with ``late``
# they open when ``window.open_wires()`` is called. While ``window.deaf`` all is lost that they are given.
KEEP_WIRES = """late => {
    const Plain = window.Plain ??= window.WebSocket, waiting = [];
    window.wires = [];
    window.taken = {};
    window.open_wires = () => { late = false; for (const open of waiting) open(); };
    window.WebSocket = class extends Plain {
        constructor(...args) {
            super(...args);
            this.wire = this.url.includes('/sandbox-nb/');
            if (this.wire) window.wires.push(this);
        }
        get readyState() { return this.wire && late ? Plain.CONNECTING : super.readyState; }
        set onopen(open) { super.onopen = () => this.wire && late ? waiting.push(open) : open(); }
        send(data) {
            if (this.wire) {
                const { kind } = JSON.parse(new TextDecoder().decode(data).split('\\n')[0]);
                window.taken[kind] = (window.taken[kind] ?? 0) + 1;
                if (window.deaf) return;
            }
            super.send(data);
        }
    };
}"""

_WAIT_FOR_WIRE = f"""
deadline = time.monotonic() + {TIMEOUT}
while not t._session._wires and time.monotonic() < deadline: time.sleep(0.01)
print("there is a wire" if t._session._wires else "there is none")
"""


class Notebook(InPage):
    """With terminals in it."""

    def __init__(self, server, page, name, *, cells=3):
        page.set_default_timeout(TIMEOUT * 1000)
        super().__init__(server, page, name, cells=cells, prelude=PRELUDE)
        self.wired = True

    def see_output(self, wanted, *, cell=1, timeout=TIMEOUT):
        """Wait until the outputs of a cell have this text, or match this compiled expression; return the match."""
        expression = re.compile(re.escape(wanted)) if isinstance(wanted, str) else wanted
        return self._wait(self.output(cell).first.inner_text, expression, timeout)

    def text(self, terminal=0):
        """What a terminal of the page shows, its scrollback included."""
        return self.page.evaluate(_TEXT, terminal)

    def see(self, wanted, *, terminal=0, timeout=TIMEOUT):
        """Wait until a terminal shows a match of this regular expression; return it."""
        script = f"([n, wanted]) => new RegExp(wanted, 'm').test(({_TEXT})(n))"
        try:
            self.page.wait_for_function(script, arg=[terminal, wanted], timeout=timeout * 1000, polling=50)
        except Exception:
            pytest.fail(f"no {wanted!r} in:\n{self.text(terminal)[-3000:]}")
        return re.search(wanted, self.text(terminal), re.MULTILINE)

    def screen(self, wanted, *, timeout=TIMEOUT):
        """Wait until the rows in sight of the first terminal match; return them up to the last that has text."""
        expression = re.compile(wanted, re.MULTILINE)
        found = self._wait(lambda: "\n".join(self.page.evaluate(_SCREEN)), expression, timeout)
        return found.string.splitlines()

    def _wait(self, read, wanted, timeout):
        deadline = time.monotonic() + timeout
        while not (found := wanted.search(text := read())):
            assert time.monotonic() < deadline, f"no {wanted.pattern!r} in:\n{text[-3000:]}"
            self.page.wait_for_timeout(50)
        return found

    def paste(self, text):
        """Paste this text into the first terminal."""
        self.focus()
        self.page.evaluate(_PASTE, text)

    def wait_for_wire(self):
        """Wait until the terminal ``t`` has a wire to this page, unless the page can have none."""
        if self.wired:
            self.run(_WAIT_FOR_WIRE, cell=3)
            self.see_output("there is a wire", cell=3)
            self.run("", cell=3)

    def focus(self, terminal=0):
        self.page.locator(".sandbox-nb-terminal .xterm-screen").nth(terminal).click()

    def type(self, text, terminal=0):
        """Click into a terminal and type."""
        self.focus(terminal)
        self.page.keyboard.type(text)

    def size(self, terminal=0):
        """Rows and columns of a terminal."""
        element = f"document.querySelectorAll('.sandbox-nb-terminal')[{terminal}]"
        return tuple(self.page.evaluate(f"[{element}.terminal.rows, {element}.terminal.cols]"))


# No wider than a module: while playwright is up its event loop counts as running, and no asyncio test could.
@pytest.fixture(scope="module")
def chromium():
    with skipping(), browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def servers():
    """Starts each application when it is first asked for; "comm" is a JupyterLab without our server extension."""
    with contextlib.ExitStack() as stack:
        started = {}

        def start(app):
            if app not in started:
                server = Server(options=[WITHOUT_WIRES]) if app == "comm" else Server(app)
                with skipping():
                    started[app] = stack.enter_context(server)
            return started[app]

        yield start


@pytest.fixture(scope="module")
def shared(chromium, servers):
    """One notebook of each application, for the tests that leave it as they found it."""
    opened = {}

    def open_one(app):
        if app not in opened:
            page = chromium.new_page(viewport={"width": 1200, "height": 900})
            opened[app] = Notebook(servers(app), page, f"shared-{app}.ipynb")
        return opened[app]

    yield open_one
    for notebook in opened.values():
        notebook.page.close()


@pytest.fixture(scope="module", params=["jupyterlab", "notebook", "comm"])
def anywhere(request, shared):
    """A notebook in each of the applications."""
    return shared(request.param)


@pytest.fixture(scope="module")
def in_lab(shared):
    return shared("jupyterlab")


@pytest.fixture
def lab(in_lab):
    """A notebook in JupyterLab."""
    yield in_lab
    in_lab.run("", cell=1)
    in_lab.run("", cell=2)


@pytest.fixture(params=["wire", "comm"])
def either(request, shared):
    """A notebook in JupyterLab, whose terminals have a wire or do with the comm."""
    notebook = shared("jupyterlab" if request.param == "wire" else "comm")
    notebook.wired = request.param == "wire"
    yield notebook
    notebook.run("", cell=1)
    notebook.run("", cell=2)


@pytest.fixture
def fresh(chromium, servers, request):
    """A notebook in JupyterLab that the test may spoil."""
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    yield Notebook(servers("jupyterlab"), page, f"{name}.ipynb")
    page.close()


@pytest.fixture
def room():
    room = Room()
    yield room
    room.session.close()
    assert room.ended.wait(10)
