"""Terminals in several places and at several times: reload, second browser, lost messages, the saved file."""

from __future__ import annotations

import json
import re

import nbformat
import pytest
from lab import skipping
from nbconvert import HTMLExporter

from sandbox_nb.bench.terminal_page import WITHOUT_WIRES, Server, open_notebook

from .conftest import KEEP_WIRES, Notebook

pytestmark = [pytest.mark.browser]

# A line a time, so that there is something to lose all the while.
COUNT = """
import time
for number in range(1500):
    print(f"line {number} " + "." * 60, flush=True)
    time.sleep(0.002)
print("counted", flush=True)
time.sleep(100)
"""

# More than what is kept, as fast as it goes, once it is told to.
FLOOD = """
for lines, end in ((range(50_000), "half"), (range(50_000, 100_000), "done")):
    input()
    for number in lines:
        print(str(number).ljust(40, "."))
    print(end, flush=True)
input()
"""

# Leaves a title unfinished; then, once it is told to, more than what is kept.
GAP = """
input()
print("before\\x1b[?2004h\\x1b]777;\\x07stale\\x1b]0;unfinished", end="", flush=True)
input()
for number in range(100_000):
    print(str(number).ljust(40, "."))
print("done", flush=True)
input()
"""

# Has xterm.js wait at this sequence until ``window.parse()`` is called, and counts what it is given.
HOLD = """() => {
    const { terminal } = document.querySelector('.sandbox-nb-terminal'), write = terminal.write.bind(terminal);
    window.given = 0;
    terminal.write = (data, done) => { window.given += data.length; write(data, done); };
    terminal.parser.registerOscHandler(777, () => new Promise(done => { window.parse = () => done(true); }));
}"""

# Asks where the cursor is and tells how many answers came until there was none for a second.
ASK = """
import os, select, time, tty
tty.setraw(0)
for round in range(2):
    os.write(1, b"\\x1b[6n")
    answers, wait = b"", 30
    while select.select([0], [], [], wait)[0]:
        answers, wait = answers + os.read(0, 1000), 1
    os.write(1, b"answers: %d\\r\\n" % answers.count(b"R"))
    if round == 0:
        # On to the second round with a key, of which the answers are all that must come before.
        os.read(0, 1000)
extra = select.select([0], [], [], 1)[0]
os.write(1, b"extra: %r\\r\\n" % (os.read(0, 1000) if extra else b""))
time.sleep(100)
"""

# Has the page believe that its server has our extension, or has not.
SAY_WIRES = """wires => {
    const config = document.getElementById('jupyter-config-data');
    config.textContent = JSON.stringify({...JSON.parse(config.textContent), sandboxNbWire: wires});
}"""

BRACKETED = "document.querySelector('.sandbox-nb-terminal').terminal.modes.bracketedPasteMode"

READY_AGAIN = "() => document.querySelector('.sandbox-nb-terminal')?.terminal"


def assert_counted(text):
    """Every line is there, once, in order."""
    assert [int(n) for n in re.findall(r"^line (\d+) \.{60}$", text, re.MULTILINE)] == list(range(1500))


def save(notebook):
    notebook.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    notebook.page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty")
    return nbformat.read(notebook.server.root / notebook.name, as_version=4)


def kernel_of(notebook):
    return next(s["kernel"]["id"] for s in notebook.server.api("sessions") if s["path"] == notebook.name)


def test_a_reload_in_the_middle_of_output_loses_and_doubles_nothing(either):
    either.run(f"t = Terminal(python({COUNT!r}))\nt")
    either.see("^line 200 ")
    save(either)
    open_notebook(either.page, either.server, either.name)
    either.see("^counted")
    assert_counted(either.text())
    assert either.errors == []


def test_a_reload_of_a_running_program_goes_on_with_it(lab):
    lab.run("t = Terminal(shell())\nt")
    lab.see(r"^\$")
    lab.type("X=42\n")
    save(lab)
    open_notebook(lab.page, lab.server, lab.name)
    lab.see(r"X=42\n\$")
    lab.type("echo $((X + 1)); stty size\n")
    lab.see("^43$")
    lab.see("^{} {}$".format(*lab.size()))


def test_two_browsers_show_one_terminal_and_the_one_used_sets_the_size(either, chromium):
    either.run("t = Terminal(shell())\nt")
    either.see(r"^\$")
    save(either)
    wide = either.size()
    context = chromium.new_context(viewport={"width": 800, "height": 700})
    try:
        other = object.__new__(Notebook)
        other.server, other.page, other.name, other.errors = either.server, context.new_page(), either.name, []
        open_notebook(other.page, either.server, either.name)
        other.see(r"^\$")
        other.type('echo from the oth""er; stty size\n')
        narrow = other.size()
        assert narrow[1] < wide[1]
        for notebook in (other, either):
            notebook.see("^from the other\n{} {}$".format(*narrow))
        assert either.size() == narrow
        either.type('echo from the fi""rst; stty size\n')
        for notebook in (other, either):
            notebook.see("^from the first\n{} {}$".format(*wide))
        assert other.size() == either.size() == wide
    finally:
        context.close()


def test_two_views_in_one_page_show_the_same_and_a_question_has_one_answer(lab):
    lab.run("t = Terminal(LocalPty(['cat']))\nt")
    lab.run("t", cell=2)
    lab.page.wait_for_function("document.querySelectorAll('.sandbox-nb-terminal').length === 2")
    lab.type("to both\n", terminal=0)
    for terminal in (0, 1):
        lab.see("^to both\nto both", terminal=terminal)
    lab.run(f"t = Terminal(python({ASK!r}))\nt")
    lab.see("^answers: 1")
    lab.run("t", cell=2)
    lab.see("^answers: 1", terminal=1)
    lab.page.wait_for_timeout(500)
    lab.type("x", terminal=1)
    for terminal in (0, 1):
        lab.see("^answers: 1\nanswers: 1\nextra: b''", terminal=terminal)


def test_a_view_on_a_wire_and_one_on_the_comm_show_the_same(lab):
    lab.run(f"t = Terminal(python({COUNT!r}))\nt")
    lab.wait_for_wire()
    lab.page.evaluate(SAY_WIRES, False)
    try:
        lab.run("t", cell=2)
        for terminal in (0, 1):
            lab.see("^counted", terminal=terminal)
            assert_counted(lab.text(terminal))
    finally:
        lab.page.evaluate(SAY_WIRES, True)


def test_a_wire_that_is_cut_loses_nothing_and_is_laid_again(lab):
    lab.page.evaluate(KEEP_WIRES, False)
    lab.run(f"t = Terminal(python({FLOOD!r}), scrollback=200_000)\nt")
    lab.wait_for_wire()
    for lines in range(2):
        lab.type("go\n")
        lab.page.wait_for_timeout(300)
        lab.page.evaluate("window.wires.at(-1).close()")
        lab.page.wait_for_function(f"window.wires.length === {lines + 2}")
        lab.page.wait_for_function("window.wires.at(-1).readyState === WebSocket.OPEN")
        lab.see("^done" if lines else "^half")
    assert re.findall(r"^(\d+)\.+$", lab.text(), re.MULTILINE) == [str(n) for n in range(100_000)]
    lab.wait_for_wire()
    lab.page.locator(".sandbox-nb-notice").wait_for(state="hidden")
    assert lab.errors == []


def test_keys_that_were_in_a_wire_when_it_was_cut_are_sent_again(lab):
    lab.page.evaluate(KEEP_WIRES, False)
    lab.run("t = Terminal(LocalPty(['cat']))\nt")
    lab.wait_for_wire()
    lab.focus()
    lab.page.keyboard.type("before, ")
    lab.page.evaluate("window.deaf = true")
    lab.page.keyboard.type("on the way, ")
    lab.page.evaluate("window.deaf = false; window.wires.at(-1).close()")
    lab.page.keyboard.type("after\n")
    lab.see("^before, on the way, after\nbefore, on the way, after$")


def test_keys_keep_their_order_while_a_wire_is_laid(lab):
    lab.page.evaluate(KEEP_WIRES, True)
    lab.run("t = Terminal(LocalPty(['cat']))\nt")
    lab.focus()
    text = "".join(chr(ord("a") + n % 26) for n in range(200))
    lab.page.keyboard.type(text[:100])
    lab.page.evaluate("window.open_wires()")
    lab.page.keyboard.type(text[100:] + "\n")
    lab.see(f"^{text}\n{text}")
    lab.page.wait_for_timeout(1000)
    lab.page.keyboard.type("then\n")
    lab.see("^then\nthen")
    assert lab.page.evaluate("window.taken.input") >= 5


def test_a_connection_of_which_all_is_lost_leaves_no_notice(lab):
    lab.page.evaluate(KEEP_WIRES, False)
    lab.run("t = Terminal(shell())\nt")
    lab.wait_for_wire()
    lab.page.evaluate("""() => {
        window.wires.at(-1).close();
        window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.reconnect();
    }""")
    lab.page.wait_for_function("window.wires.length === 2")
    lab.page.wait_for_timeout(2000)
    lab.page.locator(".sandbox-nb-notice").wait_for(state="hidden")
    lab.type("echo $((40 + 2))\n")
    lab.see("^42")


def test_a_question_in_what_is_replayed_is_not_answered_again(lab):
    lab.run(f"t = Terminal(python({ASK!r}))\nt")
    lab.see("^answers: 1")
    save(lab)
    open_notebook(lab.page, lab.server, lab.name)
    lab.see("^answers: 1")
    lab.page.wait_for_timeout(1000)
    lab.type("x")
    # An answer to the replayed question would have been read as the key, and the key as one of the answers.
    lab.see("^answers: 1\nanswers: 1\nextra: b''")


def test_what_the_server_drops_is_asked_for_again(chromium):
    # The server's guard against floods drops messages in silence.
    options = [WITHOUT_WIRES, "--ZMQChannelsWebsocketConnection.iopub_msg_rate_limit=5"]
    with skipping(), Server(options=options) as server:
        page = chromium.new_page(viewport={"width": 1200, "height": 900})
        notebook = Notebook(server, page, "limited.ipynb")
        notebook.run(f"t = Terminal(python({COUNT!r}))\nt")
        notebook.see("^counted", timeout=60)
        assert_counted(notebook.text())
        page.close()
        assert "message rate exceeded" in server.log.read_text()


HIDE = """hidden => {
    Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
    document.dispatchEvent(new Event('visibilitychange'));
}"""


def test_a_hidden_page_is_sent_nothing_and_catches_up_when_it_is_seen_again(either):
    either.run(f"t = Terminal(python({COUNT!r}))\nt")
    either.see("^line 200 ")
    either.page.evaluate(HIDE, True)
    either.run("while 'counted' not in t.text(): time.sleep(0.1)\nprint('counted there')", cell=2)
    either.see_output("counted there", cell=2)
    assert "counted" not in either.text()
    either.page.evaluate(HIDE, False)
    either.see("^counted")
    assert_counted(either.text())


def test_behind_a_gap_nothing_is_left_of_what_was_before_it(lab):
    lab.run(f"t = Terminal(python({GAP!r}))\nt")
    lab.page.wait_for_function(READY_AGAIN)
    lab.page.evaluate(HOLD)
    lab.type("\n")
    lab.see("^before")
    lab.page.wait_for_function("window.parse !== undefined")
    lab.page.evaluate(HIDE, True)
    lab.run("t.write('\\n')\nwhile b'done' not in t._session.tail()[0]: time.sleep(0.1)", cell=2)
    lab.page.evaluate(HIDE, False)
    lab.page.wait_for_function("window.given > 100_000")
    assert lab.page.evaluate(BRACKETED)
    lab.page.evaluate("() => window.parse()")
    lab.see("^done")
    assert not re.search("before|stale|unfinished", lab.text())
    assert not lab.page.evaluate(BRACKETED)


def test_a_connection_that_is_lost_and_found_loses_nothing(either):
    either.run(f"t = Terminal(python({COUNT!r}))\nt")
    either.see("^line 200 ")
    for _ in range(3):
        either.page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.reconnect()")
        either.page.wait_for_timeout(300)
    either.see("^counted")
    assert_counted(either.text())
    either.page.locator(".sandbox-nb-notice").wait_for(state="hidden")


def test_run_all_with_a_cell_that_blocks_shows_the_terminal_and_answers(lab):
    lab.page.evaluate(
        """cells => {
            const notebook = window.jupyterapp.shell.currentWidget.content;
            cells.forEach((code, n) => notebook.widgets[n + 1].model.sharedModel.setSource(code));
        }""",
        ["t = Terminal(shell())\nt", "time.sleep(8)"],
    )
    lab.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    lab.page.wait_for_selector(".sandbox-nb-terminal .xterm-screen")
    lab.type('echo $((40 + 2))-al""ive\n')
    lab.see("^42-alive", timeout=30)


def test_a_program_that_ends_leaves_a_transcript_that_needs_no_kernel(lab):
    lab.run(
        "t = Terminal(LocalPty(['sh', '-c', 'echo plain; printf \"\\\\033[31mred\\\\033[0m\\\\n\"; exit 3']))\nt"
    )
    lab.see_output("[exited with status 3]")
    assert lab.page.locator(".sandbox-nb-terminal").count() == 0
    saved = save(lab)
    (output,) = saved.cells[1].outputs
    assert output.data == {"text/plain": "plain\n\x1b[0;31mred\x1b[0m\n[exited with status 3]"}
    html, _ = HTMLExporter().from_notebook_node(saved)
    assert "exited with status 3" in html
    assert '<span class="ansi-red-fg">red</span>' in html


def test_a_program_that_ends_in_a_page_that_was_loaded_again_leaves_it_too(lab):
    lab.run("t = Terminal(shell())\nt")
    lab.see(r"^\$")
    save(lab)
    open_notebook(lab.page, lab.server, lab.name)
    lab.see(r"^\$")
    lab.type("exit 4\n")
    lab.see_output("[exited with status 4]")
    lab.page.wait_for_function("!document.querySelector('.sandbox-nb-terminal')")
    (output,) = save(lab).cells[1].outputs
    assert list(output.data) == ["text/plain"]
    assert output.data["text/plain"].endswith("$ exit 4\n[exited with status 4]")


def test_a_restart_leaves_the_transcript(fresh):
    fresh.run("t = Terminal(shell())\nt")
    fresh.see(r"^\$")
    fresh.type('echo wha""t was\n')
    fresh.see("^what was")
    fresh.server.api(f"kernels/{kernel_of(fresh)}/restart", "POST")
    fresh.page.wait_for_function("!document.querySelector('.sandbox-nb-terminal')")
    (output,) = save(fresh).cells[1].outputs
    assert list(output.data) == ["text/plain"]
    assert "\nwhat was\n" in output.data["text/plain"]


def test_a_kernel_that_is_killed_leaves_a_line_and_the_transcript(fresh):
    fresh.run("t = Terminal(shell())\nt")
    fresh.see(r"^\$")
    fresh.type('echo wha""t was\n')
    fresh.see("^what was")
    fresh.run("os.kill(os.getpid(), 9)", cell=2, wait=False)
    fresh.see_output("The kernel that ran this terminal is gone", timeout=30)
    fresh.page.wait_for_function("!document.querySelector('.sandbox-nb-terminal')")
    (output,) = save(fresh).cells[1].outputs
    assert list(output.data) == ["text/plain"]
    assert "\nwhat was\n" in output.data["text/plain"]


def test_a_terminal_that_was_closed_leaves_the_transcript(lab):
    lab.run("t = Terminal(shell())\nt")
    lab.see(r"^\$")
    lab.run("t.close(); t.close()", cell=2)
    lab.see_output("[ended by SIGHUP]")
    assert lab.errors == []


def test_a_recording_has_what_was_seen(lab):
    lab.run("t = Terminal(shell()).record('x.cast')\nt")
    lab.see(r"^\$")
    lab.type('echo reco""rded; exit\n')
    lab.see_output("[exited with status 0]")
    header, *events = [json.loads(line) for line in (lab.server.root / "x.cast").read_text().splitlines()]
    assert header["version"] == 2
    assert "\r\nrecorded\r\n" in "".join(text for _, kind, text in events if kind == "o")
