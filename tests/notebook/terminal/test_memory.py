"""Memory under output that never ends, of all that it goes through: the kernel, the Jupyter server, the page."""

from __future__ import annotations

import re
import time

import psutil
import pytest

pytestmark = [pytest.mark.browser]

ROOM = 25e6
"""Bytes each may grow by, while the program writes at least twice as many."""

WRITTEN = "print('written', t._session._flow.ring.end)"


def memory(notebook, kernel):
    """Bytes that kernel, server and page hold."""
    devtools = notebook.page.context.new_cdp_session(notebook.page)
    devtools.send("Performance.enable")
    devtools.send("HeapProfiler.collectGarbage")
    metrics = {each["name"]: each["value"] for each in devtools.send("Performance.getMetrics")["metrics"]}
    devtools.detach()
    return {
        "kernel": psutil.Process(kernel).memory_info().rss,
        "server": psutil.Process(notebook.server.pid).memory_info().rss,
        "page": metrics["JSHeapUsedSize"],
    }


def number(notebook, name, code):
    """Run code that prints a number behind this name, and return it."""
    notebook.run(code, cell=2)
    return int(notebook.see_output(re.compile(rf"{name} (\d+)"), cell=2)[1])


@pytest.mark.parametrize("seconds", [0, pytest.param(600, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])])
def test_a_flood_leaves_memory_as_it_is_and_stops_at_once(fresh, seconds):
    fresh.run("t = Terminal(shell(), scrollback=1000)\nt")
    kernel = number(fresh, "pid", "print('pid', os.getpid())")
    fresh.type("yes 0123456789\n")
    # Until every buffer on the way has been full once.
    fresh.page.wait_for_timeout(5000)
    before, first = memory(fresh, kernel), number(fresh, "written", WRITTEN)
    end = time.monotonic() + seconds
    while time.monotonic() < end or (written := number(fresh, "written", WRITTEN) - first) < 2 * ROOM:
        fresh.page.wait_for_timeout(1000)
    after = memory(fresh, kernel)
    fresh.focus()
    fresh.page.keyboard.press("Control+c")
    fresh.page.keyboard.type("echo cal''m\n")
    fresh.see("^calm$")
    grown = {name: after[name] - before[name] for name in before}
    print(f"{written / 1e6:.0f} MB written;", {name: f"{size / 1e6:+.1f} MB" for name, size in grown.items()})
    assert {name: size for name, size in grown.items() if size > ROOM} == {}
