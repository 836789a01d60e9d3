"""The dashboard in a real JupyterLab: what it shows, its buttons, what it costs when it is not seen, its end."""

from __future__ import annotations

import os
import signal

import pytest
from lab import opened, until

pytestmark = [pytest.mark.vm, pytest.mark.browser, pytest.mark.timeout(240)]

WAIT = 40_000

MACHINE = "get_ipython().find_line_magic('sandbox').__self__.session.find(None)"


# Without its display_id, with which JupyterLab would render the first anew as well.
SHOW_AGAIN = """
from sandbox_nb.notebook import dashboard
[shown] = dashboard._shown
view = {"version_major": 2, "version_minor": 0, "model_id": shown.model_id}
display({"application/vnd.jupyter.widget-view+json": view}, raw=True)
"""


# Starts a process while the keyboard is elsewhere than in a cell.
WHEN_TOLD = """
import threading, time
from pathlib import Path
def start(folder):
    while not (folder / "go").exists():
        time.sleep(0.05)
    globals()["new"] = sb.popen("exec sleep 76")
    (folder / "gone").touch()
threading.Thread(target=start, args=[Path("{folder}")]).start()
"""


@pytest.fixture(scope="module")
def notebook():
    with opened("dashboard.ipynb") as made:
        made.run(f"%sandbox start\nsb = {MACHINE}\nimport os")
        yield made
        assert made.errors == []


@pytest.fixture(scope="module")
def dashboard(notebook):
    notebook.run("%sandbox status --live", cell=2)
    found = notebook.page.locator(".sandbox-nb-dashboard")
    found.locator(".plots svg").first.wait_for(timeout=WAIT)
    return found


def answer(notebook, expression):
    """What an expression is in the kernel, as text."""
    notebook.run(expression, cell=4)
    return notebook.output(4).inner_text().split()[-1]


def test_it_shows_the_machine_and_how_it_goes(notebook, dashboard):
    assert dashboard.locator(".head b").inner_text() == "sandbox"
    assert dashboard.locator(".dot.running").count() == 1
    assert dashboard.locator(".plot").count() == 4
    dashboard.locator(".plot polyline").first.wait_for(timeout=WAIT)
    assert "1025:" in dashboard.locator(".streams").inner_text()
    assert dashboard.locator(".forwards").is_hidden()
    notebook.run("forward = sb.forward(0, 80)", cell=3)
    dashboard.locator(".forwards", has_text="the guest's port 80").wait_for(timeout=WAIT)


def test_a_process_is_ended_by_its_button(notebook, dashboard):
    notebook.run("process = sb.popen('exec sleep 987')", cell=3)
    row = dashboard.locator(".processes tr", has_text="sleep 987")
    row.wait_for(timeout=WAIT)
    row.locator("button").click()
    row.wait_for(state="detached", timeout=WAIT)
    assert answer(notebook, "process.wait(10)") == "-15"
    notebook.run("process.__exit__()", cell=3)


def test_the_keyboard_stays_at_the_button_it_is_at(notebook, dashboard, tmp_path):
    notebook.run("old = [sb.popen('exec sleep 98') for _ in range(2)]", cell=3)
    notebook.page.mouse.move(0, 0)  # or the list waits for it
    buttons = dashboard.locator(".processes tr", has_text="sleep 98").locator("button")
    buttons.nth(1).wait_for(timeout=WAIT)
    notebook.run(WHEN_TOLD.format(folder=tmp_path), cell=3)
    buttons.nth(0).focus()
    first, second = (buttons.nth(number).evaluate_handle("button => button") for number in range(2))
    (tmp_path / "go").touch()
    while not (tmp_path / "gone").exists():
        notebook.page.wait_for_timeout(50)
    for _ in range(2):
        picture = dashboard.locator(".plots svg").first.evaluate_handle("picture => picture")
        notebook.page.wait_for_function("picture => !picture.isConnected", arg=picture)
    assert first.evaluate("button => button === document.activeElement")
    notebook.page.keyboard.press("Tab")
    notebook.page.wait_for_timeout(100)
    assert second.evaluate("button => button === document.activeElement")
    assert dashboard.get_by_text("sleep 76").count() == 0
    second.evaluate("button => button.blur()")
    dashboard.get_by_text("sleep 76").first.wait_for(timeout=WAIT)
    notebook.run("for each in *old, new: each.kill(); each.__exit__()", cell=3)


def test_another_view_takes_nothing_from_the_first(notebook, dashboard):
    mark = dashboard.locator(".head").evaluate_handle("part => part")
    notebook.run(SHOW_AGAIN, cell=3)
    notebook.output(3).locator(".plots svg").first.wait_for(timeout=WAIT)
    assert mark.evaluate("part => part.isConnected")
    notebook.run("", cell=3)


def test_the_guest_is_asked_nothing_while_the_dashboard_is_scrolled_away(notebook, dashboard):
    notebook.run("lens = sb.trace()", cell=3)
    count = "len(lens.crossings(layers=['ttrpc'], match='Stats.Get request'))"
    until(lambda: int(answer(notebook, count)) > 0)
    dashboard.evaluate("element => { element.style.display = 'none'; }")
    notebook.page.wait_for_timeout(9_000)
    asked = answer(notebook, count)
    notebook.page.wait_for_timeout(5_000)
    assert answer(notebook, count) == asked
    dashboard.evaluate("element => { element.style.display = ''; }")
    until(lambda: int(answer(notebook, count)) > int(asked))
    notebook.run("lens.close()", cell=3)


# The last: it takes the kernel.
def test_a_kernel_that_is_killed_leaves_a_calm_line_and_the_portrait_in_the_document(notebook, dashboard):
    os.kill(int(answer(notebook, "os.getpid()")), signal.SIGKILL)
    dashboard.get_by_text("is gone: this is how it was last seen").wait_for(timeout=WAIT)
    assert dashboard.locator("button").count() == 0
    until(lambda: "widget-view" not in notebook.document())
    assert "this is how it was last seen" in notebook.document()
