"""``%sandbox config`` in a real kernel: which machine, with which options, and what it refuses."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vm


def test_it_begins_with_settings_and_flags_and_with_what_a_machine_has(kernel):
    kernel.run("%config SandboxMagics.image = 'python'")
    (bundle,) = kernel.run("%sandbox config --name web --cpu 2 --memory 300").displays
    expected = "web: new\n%sandbox start --name web --cpu 2 --memory 300 --image python"
    assert bundle["text/plain"] == expected
    assert "application/vnd.jupyter.widget-view+json" in bundle
    kernel.run("%config SandboxMagics.image = 'base'")
    kernel.run("%sandbox start --cpu 1 --memory 280")
    (bundle,) = kernel.run("%sandbox config").displays
    assert bundle["text/plain"] == "sandbox: running\n%sandbox start --cpu 1 --memory 280"


PRESS_START = """
import time
panel._start.click()
while panel.machine.state.value == "new": time.sleep(0.001)
"""


def test_the_machine_it_starts_is_the_notebooks(kernel):
    kernel.run("%sandbox config --name web")
    kernel.run("panel = Out[len(In) - 2]")
    assert kernel.run(PRESS_START).error == ""
    kernel.run("while panel.machine.state.value == 'starting': time.sleep(0.01)")
    assert kernel.run("%sandbox run --name web -- hostname").stdout == "web\n"
    kernel.run("%sandbox stop --name web")
    kernel.run("%sandbox start --name web")
    kernel.run("panel._start.disabled = False; panel._start.click()")
    assert "web runs already" in kernel.run("print(panel._said.value)").stdout
    assert kernel.run("%sandbox list").stdout.count("running") == 1


@pytest.mark.parametrize("way", ["panel._stop.click()", "%sandbox stop"])
def test_a_start_it_has_begun_is_taken_back(kernel, way):
    kernel.run("%sandbox config")
    kernel.run("panel = Out[len(In) - 2]")
    assert kernel.run(f"{PRESS_START}\n{way}").error == ""
    kernel.run("while panel.machine.state.value != 'stopped': time.sleep(0.01)")
    kernel.run("while 'back' in panel._said.value: time.sleep(0.01)")
    assert kernel.run("%sandbox start").error == ""


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("config --memory 12", "at least"),
        ("config --colour red", "unknown argument --colour"),
        ("config --name bad_name", "letters, digits"),
        ("config --config /no/such.toml", "cannot be read"),
        ("status --life", "did you mean"),
    ],
)
def test_bad_input_is_one_line_and_no_panel(running, line, word):
    reply = running.run(f"%sandbox {line}")
    assert word in reply.error
    assert reply.error.count("\n") == 0
    assert reply.displays == []
