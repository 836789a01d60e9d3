"""Terminals of a real machine, in a real JupyterLab, in a real browser."""

from __future__ import annotations

import hashlib
import re

import pytest

from .conftest import Notebook

pytestmark = [pytest.mark.vm, pytest.mark.browser]


@pytest.fixture(scope="module")
def machine(chromium, servers):
    """A notebook in which the sandbox ``sb`` runs."""
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    notebook = Notebook(servers("jupyterlab"), page, "guest.ipynb")
    notebook.run("""
%load_ext sandbox_nb
from sandbox_nb import Sandbox
sb = Sandbox()
sb.start()
%sandbox use sb
print("ready:", sb.state.value)
""")
    notebook.see_output("ready: running")
    yield notebook
    notebook.run("sb.stop()")
    page.close()


@pytest.fixture
def lab(machine):
    yield machine
    machine.run("", cell=1)
    machine.run("", cell=2)
    assert machine.errors == []


@pytest.fixture
def victim(lab):
    """Another machine, ``victim``, for the test to end."""
    lab.run("victim = Sandbox('victim'); victim.start()")
    yield lab
    lab.run("if victim.state.value != 'stopped': victim.stop()", cell=2)


def test_type_and_see_the_answer_at_the_size_of_the_widget(lab):
    lab.run("%sandbox terminal --height 14")
    lab.see("root@sandbox")
    lab.type("echo $((6 * 7))-$(hostname); stty size\n")
    lab.see("^42-sandbox")
    rows, columns = lab.size()
    assert rows == 14
    lab.see(f"^{rows} {columns}$")


def test_the_interrupt_key_reaches_the_program_and_stops_a_flood(lab):
    lab.run("%sandbox terminal")
    lab.see("root@sandbox")
    # The program says when it is ready for the key; before, the shell might take it.
    lab.type("sh -c 'trap \"exit 130\" INT; echo go-$((1 + 1)); while :; do sleep 1; done'\n")
    lab.see("^go-2")
    lab.page.keyboard.press("Control+C")
    lab.page.keyboard.type("echo back-$?\n")
    lab.see("^back-130")
    lab.page.keyboard.type("yes\n")
    lab.see("^y\ny\ny")
    lab.page.wait_for_timeout(1000)
    lab.page.keyboard.press("Control+c")
    lab.page.keyboard.type("echo cal''m\n")
    lab.see("^calm")


def test_vi_draws_right_and_again_after_a_resize(lab):
    lab.run("t = sb.terminal('seq 100 > f; vi f', height=20)\nt")
    assert len(lab.screen(r"\A1\n2\n[^~]*^- f 1/100")) == 20
    lab.run("t.height = 11", cell=2)
    lines = lab.screen(r"\A1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n- f 1/100")
    assert len(lines) == lab.size()[0] == 11
    lab.type("GAthe end")
    lab.screen(r"^99\n100the end\n(~\n)*I f 100/100")
    lab.page.keyboard.press("Escape")
    # What comes right behind an escape would be taken for a part of a sequence.
    lab.screen("^- f ")
    lab.page.keyboard.type(":q!\n")
    lab.see_output("exited with status 0")


def test_top_draws_right_and_again_after_a_resize(lab):
    lab.run("t = sb.terminal('top -d 1', height=20)\nt")
    lab.screen(r"\AMem: .*\nCPU: .*\nLoad average: .*\n +PID .*COMMAND")
    lab.run("t.height = 8", cell=2)
    lab.page.wait_for_function("document.querySelector('.sandbox-nb-terminal').terminal.rows === 8")
    lines = lab.screen(r"\AMem: .*\nCPU: .*\nLoad average: .*\n +PID .*COMMAND")
    assert len(lines) <= 8
    assert max(map(len, lines)) <= lab.size()[1]
    lab.type("q")
    lab.see_output("exited with status 0")


def test_a_paste_of_100_kb_arrives_whole(lab):
    text = "".join(f"line {n} äöü 世界 🚀\r" for n in range(4000))
    size = len(text.encode())
    lab.run(f"t = sb.terminal('stty raw -echo; echo ready; head -c {size} | sha256sum')\nt")
    lab.see("ready")
    assert size > 100_000
    lab.paste(text)
    lab.see_output(hashlib.sha256(text.encode()).hexdigest())


def test_it_answers_while_a_cell_runs(lab):
    lab.run("%sandbox terminal")
    lab.see("root@sandbox")
    lab.run("time.sleep(6)", cell=2, wait=False)
    lab.page.wait_for_timeout(500)
    lab.type("echo $((40 + 2))-alive\n")
    lab.see("^42-alive")
    running = lab.page.locator(".jp-InputPrompt", has_text="[*]")
    assert running.count() == 1
    running.wait_for(state="detached", timeout=20_000)


def test_a_stream_that_the_guest_closes_ends_with_a_calm_line(lab):
    lab.run("%sandbox terminal --stream the-stream")
    lab.page.wait_for_selector(".sandbox-nb-terminal .xterm-screen")
    lab.run("p = sb.popen('echo through the stream', stdin='the-stream', stdout='the-stream')", cell=2)
    lab.see_output("through the stream")
    lab.see_output("[closed by the other side]")


def test_the_console_is_shown(lab):
    lab.run("%sandbox terminal --console")
    lab.run("sb.run('echo seen on the console > /dev/console')", cell=2)
    lab.see("seen on the console")


def test_a_program_that_is_not_there_is_said(lab):
    lab.run("%sandbox terminal --command no-such-program")
    lab.see_output("no-such-program: command not found\n[exited with status 127]")


@pytest.mark.parametrize("what", ["", "console=True"])
def test_a_machine_that_is_killed_leaves_a_calm_line(victim, what):
    victim.run(f"t = victim.terminal({what})\nt")
    victim.page.wait_for_selector(".sandbox-nb-terminal .xterm-screen")
    victim.page.wait_for_timeout(1000)
    victim.run("os.kill(victim.asynchronous._life.running.machine.child.pid, 9)", cell=2)
    victim.see_output("[the machine is gone: signal 9 ended QEMU]")
    assert "Traceback" not in victim.output().inner_text()


@pytest.mark.parametrize("what", ["", "console=True"])
def test_a_machine_that_is_stopped_leaves_a_calm_line(victim, what):
    victim.run(f"t = victim.terminal({what})\nt")
    victim.page.wait_for_selector(".sandbox-nb-terminal .xterm-screen")
    victim.page.wait_for_timeout(1000)
    victim.run("victim.stop(); print(repr(t.wait(10)))", cell=2)
    victim.see_output(re.compile("'(victim has been stopped|ended by SIG[A-Z]+)'"), cell=2)
