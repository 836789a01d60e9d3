"""How fast the terminal is, side by side with JupyterLab's own, and with colab-xterm where that is installed.

All are in one browser, of one size, with as many lines of scrollback, each in a page of its own; they take
turns, and a ratio is of two neighbours. Ours shows a program on this machine, as theirs do; a further one shows a
program in a guest, which tells what the machine adds, and ``comm`` is ours where the server lacks our extension.
Times run from the key that is pressed, in the page, until
what it leads to is in the terminal's buffer (``paint``: on the screen).
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox_nb.bench import Row, Skipped
from sandbox_nb.bench.terminal_page import START_TIMEOUT, WITHOUT_WIRES, Server, browser, open_notebook, run_cell

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = (
    *(f"{what}_ratio" for what in ("term_seq", "term_yes", "term_key", "term_paint")),
    *(f"{what}_ratio" for what in ("guest_seq", "guest_key", "guest_paint", "comm_key", "comm_paint")),
    *(f"{who}_seq_ms" for who in ("term", "lab", "guest", "colab")),
    *(f"{who}_yes_ms" for who in ("term", "lab")),
    *(f"{who}_{what}_ms" for what in ("key", "paint") for who in ("term", "lab", "guest", "comm", "colab")),
)

ROWS, COLUMNS = 30, 100
SCROLLBACK = 1000

SEQ = "seq 1 200000"
SEQ_ROUNDS = 11
GUEST_ROUNDS = 3
"""Fewer: an emulated guest takes several times as long."""

YES = "yes | head -c 20000000"
YES_ROUNDS = 3
KEYS = 20
KEY_ROUNDS = 5
PAUSE = 80.0
"""Milliseconds between keys: a fast typist's."""

TIMEOUT = 180_000.0
"""Milliseconds for a command on a machine that is busy."""

# The time in milliseconds from the next key until this line is above the cursor.
_TIME = f"""(terminal, wanted) => new Promise((done, fail) => {{
    let began = 0;
    document.addEventListener('keydown', () => {{ began = performance.now(); }}, {{capture: true, once: true}});
    const look = () => {{
        const {{ active }} = terminal.buffer;
        const line = active.getLine(active.baseY + active.cursorY - 1);
        if (!began || line?.translateToString(true) !== wanted) return;
        for (const watch of watches) watch.dispose();
        done(performance.now() - began);
    }};
    // Output that leaves the cursor where it was is noticed a frame later.
    const watches = [terminal.onCursorMove(look), terminal.onRender(look)];
    setTimeout(() => fail(new Error(`there was no ${{wanted}}`)), {TIMEOUT});
}})"""

# Notes for each key the milliseconds until the cursor has moved, and until that is drawn.
_WATCH_KEYS = """terminal => {
    const samples = window.samples = [];
    let pressed = 0, moved = 0;
    document.addEventListener('keydown', () => { pressed = performance.now(); moved = 0; }, true);
    terminal.onCursorMove(() => { if (pressed && !moved) moved = performance.now() - pressed; });
    terminal.onRender(() => {
        if (!moved) return;
        samples.push([moved, performance.now() - pressed]);
        pressed = moved = 0;
    });
}"""

_SHAPE = """terminal => {
    const screen = terminal.element.querySelector('.xterm-screen');
    return [terminal.rows, terminal.cols, screen.clientHeight, screen.clientWidth];
}"""

_LOCAL = f"""
from sandbox_nb.notebook.terminal import Terminal
from sandbox_nb.notebook.terminal_source import LocalPty
Terminal(LocalPty(["/bin/sh", "-i"]), height={ROWS})
"""
_GUEST = f"""
from sandbox_nb import Sandbox
sandbox = Sandbox()
sandbox.start()
sandbox.terminal(height={ROWS})
"""


_count = itertools.count()


class Contender:
    """A terminal with a shell in it, in a page of its own.

    ``terminal`` is JavaScript that finds the terminal of xterm.js. The page gets the size at which that has ROWS
    and COLUMNS.
    """

    def __init__(self, page: Page, terminal: str) -> None:
        self._page = page
        self._terminal = terminal
        page.wait_for_function(f"() => {terminal}?.element", timeout=START_TIMEOUT * 1000)
        self._call(f"terminal => {{ terminal.options.scrollback = {SCROLLBACK}; }}")
        self._fit()
        self._call(_WATCH_KEYS)
        self._call("terminal => terminal.focus()")

    def run(self, command: str) -> float:
        """Milliseconds from the key that starts ``command`` until all it put out is there."""
        page, mark = self._page, f"done-{next(_count)}"
        page.keyboard.type(f"{command}; echo {mark[:2]}''{mark[2:]}")
        page.wait_for_timeout(500)
        page.evaluate(f"mark => {{ window.taken = ({_TIME})({self._terminal}, mark); }}", mark)
        page.keyboard.press("Enter")
        taken: float = page.evaluate("() => window.taken")
        return taken

    @contextlib.contextmanager
    def echoing(self) -> Iterator[None]:
        """Have a program there that leaves echoing to the pty."""
        self._page.keyboard.type("cat > /dev/null\n")
        self._page.wait_for_timeout(1000)
        yield
        self._page.keyboard.press("Control+d")

    def press(self) -> None:
        """Press a key."""
        self._page.keyboard.press("x")
        self._page.wait_for_timeout(PAUSE)

    def echoes(self) -> Echoes:
        """How long the echoes of the keys since the last call took."""
        self._page.wait_for_timeout(500)
        moved, drawn = zip(*self._page.evaluate("() => window.samples.splice(0)"), strict=True)
        self._page.keyboard.press("Enter")  # on a new line, so that none wraps
        self._page.wait_for_timeout(500)
        self._page.evaluate("() => { window.samples.length = 0; }")
        return Echoes(statistics.median(moved), statistics.median(drawn))

    def _call(self, function: str) -> list[int]:
        result: list[int] = self._page.evaluate(f"() => ({function})({self._terminal})")
        return result

    def _fit(self) -> None:
        for _ in range(20):
            rows, columns, height, width = self._call(_SHAPE)
            if (rows, columns) == (ROWS, COLUMNS):
                return
            window = self._page.viewport_size
            assert window is not None
            window["height"] += round((ROWS - rows) * height / rows)
            window["width"] += round((COLUMNS - columns) * width / columns)
            self._page.set_viewport_size(window)
            self._page.wait_for_timeout(300)
        raise Skipped(f"a terminal could not be made {ROWS} by {COLUMNS}; it is {rows} by {columns}")


@dataclass(frozen=True)
class Echoes:
    """Medians, in milliseconds, from a key to its echo in the terminal's buffer, and on the screen."""

    key: float
    paint: float


def rows() -> dict[str, Row]:
    """Measure all rows."""
    with (
        Server() as server,
        Server(options=[WITHOUT_WIRES]) as plain,
        browser() as chromium,
        _colab(chromium) as colab,
    ):
        term, lab = _ours(chromium, server, _LOCAL), _labs(chromium, server)
        guest, comm = _ours(chromium, server, _GUEST), _ours(chromium, plain, _LOCAL)
        beside = {"term": term, "lab": lab, **({"colab": colab} if colab else {})}
        return {
            **_commands("seq", SEQ, GUEST_ROUNDS, {"guest": guest, "term": term}),
            **_commands("seq", SEQ, SEQ_ROUNDS, beside),
            **_commands("yes", YES, YES_ROUNDS, {"term": term, "lab": lab}),
            **_keys(beside | {"guest": guest, "comm": comm}),
        }


def _commands(what: str, command: str, rounds: int, contenders: dict[str, Contender]) -> dict[str, Row]:
    taken = [{who: each.run(command) for who, each in contenders.items()} for _ in range(rounds)]
    return _summed_up(what, taken)


def _keys(contenders: dict[str, Contender]) -> dict[str, Row]:
    with contextlib.ExitStack() as stack:
        for each in contenders.values():
            stack.enter_context(each.echoing())
        taken = [_round_of_keys(contenders) for _ in range(KEY_ROUNDS)]
    found = _summed_up("key", [{who: echoes.key for who, echoes in turn.items()} for turn in taken])
    return found | _summed_up("paint", [{who: echoes.paint for who, echoes in turn.items()} for turn in taken])


def _round_of_keys(contenders: dict[str, Contender]) -> dict[str, Echoes]:
    for _ in range(KEYS):
        for each in contenders.values():
            each.press()
    return {who: each.echoes() for who, each in contenders.items()}


def _summed_up(what: str, taken: list[dict[str, float]]) -> dict[str, Row]:
    """Rows of what each took, turn by turn, and of ratios: ours to JupyterLab's, a guest's to a local one."""
    found = {f"{who}_{what}_ms": Row.of([turn[who] for turn in taken], "ms") for who in taken[0]}
    for ours, theirs in (("term", "lab"), ("comm", "lab"), ("guest", "term")):
        if ours in taken[0] and theirs in taken[0]:
            found[f"{ours}_{what}_ratio"] = Row.of([turn[ours] / turn[theirs] for turn in taken], "ratio")
    return found


def _ours(chromium: Browser, server: Server, cell: str) -> Contender:
    page = chromium.new_page()
    name = f"bench-{len(chromium.contexts)}.ipynb"
    server.write(name, [cell])
    open_notebook(page, server, name)
    run_cell(page, 0)
    return Contender(page, "document.querySelector('.sandbox-nb-terminal')?.terminal")


def _labs(chromium: Browser, server: Server) -> Contender:
    page = chromium.new_page()
    server.write("other.ipynb", [""])
    open_notebook(page, server, "other.ipynb")
    page.evaluate("() => { window.jupyterapp.commands.execute('terminal:create-new'); }")
    return Contender(page, "window.jupyterapp.shell.currentWidget.content._term")


@contextlib.contextmanager
def _colab(chromium: Browser) -> Iterator[Contender | None]:
    """colab-xterm, without the notebook that would only frame its page; None where it is not installed.

    It serves a shell to whoever finds its port on this machine, for as long as it is measured.
    """
    if importlib.util.find_spec("colabxterm") is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "colabxterm", "--port", str(port)]
    environment = os.environ | {"SHELL": "/bin/sh"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        page = chromium.new_page()
        _open_when_up(page, f"http://127.0.0.1:{port}/")
        yield Contender(page, "window.term")
    finally:
        server.terminate()
        server.wait()


def _open_when_up(page: Page, address: str) -> None:
    from playwright.sync_api import Error

    for _ in range(int(START_TIMEOUT * 10)):
        with contextlib.suppress(Error):
            page.goto(address)
            return
        page.wait_for_timeout(100)
    raise Skipped("colab-xterm did not start")
