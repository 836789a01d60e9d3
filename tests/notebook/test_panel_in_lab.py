"""The configuration panel in a real JupyterLab: filled in, wrong, started, a disk attached, stopped."""

from __future__ import annotations

import re

import pytest
from lab import opened

pytestmark = [pytest.mark.vm, pytest.mark.browser, pytest.mark.timeout(240)]

WAIT = 40_000


@pytest.fixture(scope="module")
def notebook():
    with opened("panel.ipynb") as made:
        yield made
        assert made.errors == []


@pytest.fixture
def panel(notebook):
    notebook.run("%sandbox config")
    found = notebook.page.locator(".sandbox-nb-panel")
    found.locator(".sandbox-nb-copybox textarea").wait_for()
    yield found
    notebook.run("%sandbox stop --all", cell=2)


def field(panel, name, within=".sandbox-nb-grid"):
    """The input below this name, which may have a unit, the last of them."""
    label = panel.page.get_by_text(re.compile(rf"^{re.escape(name)}(, \w+)?$"))
    return panel.locator(f"{within} .sandbox-nb-field", has=label).last.locator("input, select").first


def press(panel, text):
    panel.locator("button", has_text=text).last.click()


def see(panel, text):
    panel.get_by_text(text).first.wait_for(timeout=WAIT)


def test_filled_in_wrong_started_a_disk_attached_and_detached_stopped(notebook, panel, tmp_path):
    start = panel.locator("button", has_text="Start")
    field(panel, "memory").fill("12")
    see(panel, "memory=12: at least 96 (MiB) is needed to boot")
    assert start.is_disabled()
    field(panel, "memory").fill("300")
    see(panel, "memory=300 without cpu: give both, as in cpu=1, memory=300")
    field(panel, "cpu").fill("1")
    panel.locator("button:has-text('Start'):not(:disabled)").wait_for()
    copied = panel.locator(".sandbox-nb-copybox textarea")
    assert copied.input_value() == "%sandbox start --cpu 1 --memory 300"
    press(panel, "Start")
    panel.locator(".sandbox-nb-dot.running").wait_for(timeout=WAIT)
    see(panel, "start in")

    press(panel, "disk")
    see(panel, "Disk without block_id")
    row = ".sandbox-nb-row"
    field(panel, "block id", row).fill("data")
    field(panel, "mount path", row).fill(str(tmp_path / "data.img"))
    field(panel, "size", row).fill("64M")
    field(panel, "format", row).fill("ext4")
    field(panel, "target", row).fill("/data")
    press(panel, "attach")
    see(panel, "in the guest")
    assert field(panel, "block id", row).is_disabled()
    notebook.run("%sandbox run -- ls /data", cell=3)
    assert "lost+found" in notebook.output(3).inner_text()
    press(panel, "detach")
    panel.locator("button", has_text="attach").last.wait_for()
    panel.locator(f"{row} input:not(:disabled)").first.wait_for(timeout=WAIT)
    press(panel, "Stop")
    panel.locator(".sandbox-nb-dot.stopped").wait_for(timeout=WAIT)


def test_a_button_pressed_while_a_cell_runs_is_heeded(notebook, panel):
    runs = notebook.page.locator(".jp-InputPrompt", has_text="[*]")
    notebook.run("import time; time.sleep(20)", cell=3, wait=False)
    runs.wait_for()
    press(panel, "disk")
    panel.locator(".sandbox-nb-row button[title='take this row away']").click()
    press(panel, "Start")
    panel.locator(".sandbox-nb-dot:is(.starting, .running)").wait_for(timeout=18_000)
    assert runs.count() == 1
    panel.locator(".sandbox-nb-dot.running").wait_for(timeout=WAIT)
    runs.wait_for(state="detached", timeout=WAIT)


def test_qemus_command_line_is_shown_and_copied(notebook, panel):
    notebook.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    press(panel, "QEMU's command line")
    copied = panel.locator(".sandbox-nb-copybox textarea")
    notebook.page.wait_for_function("area => area.value.includes('-machine')", arg=copied.element_handle())
    press(panel, "copy")
    see(panel, "copied")
    assert notebook.page.evaluate("() => navigator.clipboard.readText()") == copied.input_value()


# The last: it takes the kernel.
def test_a_kernel_that_is_restarted_leaves_a_calm_line(notebook):
    notebook.run("%sandbox config --image python")
    panel = notebook.page.locator(".sandbox-nb-panel")
    panel.locator(".sandbox-nb-copybox textarea").wait_for()
    notebook.restart_kernel()
    said = (
        notebook.output(1)
        .get_by_text("run the cell again")
        .or_(notebook.page.locator(".sandbox-nb-panel.jupyter-widgets-disconnected"))
    )
    said.first.wait_for()
    notebook.page.wait_for_function(
        "() => !JSON.stringify(window.jupyterapp.shell.currentWidget.model.toJSON()).includes('widget-view')"
    )
    assert "%sandbox start --image python" in notebook.document()
