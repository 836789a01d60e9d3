"""Terminals of programs on this machine, in a real JupyterLab and a real Notebook, in a real browser."""

from __future__ import annotations

import hashlib

import pytest

from .conftest import KEEP_WIRES

pytestmark = [pytest.mark.browser]

# Draws a frame at the edge of the screen and its size in the middle, and draws it anew when the size changes.
FULL_SCREEN = """
import curses
def main(screen):
    curses.curs_set(0)
    while True:
        rows, columns = screen.getmaxyx()
        screen.erase(); screen.border()
        screen.addstr(rows // 2, 2, f"it is {rows} by {columns}")
        screen.refresh()
        if screen.getch() == ord("q"):
            return
curses.wrapper(main)
"""

# Reads a paste to its end and says what it was.
PASTE = """
import hashlib, sys, tty
tty.setraw(0)
print("\\x1b[?2004hready", end="", flush=True)
data = bytearray()
while not data.endswith(b"\\x1b[201~"):
    data += sys.stdin.buffer.raw.read(65536)
print("\\r\\n", len(data), hashlib.sha256(data).hexdigest(), "\\r")
"""

BYTE_BY_BYTE = """
import os, time
for byte in "ä é 世界 🚀 e\u0301 ok\\n".encode():
    os.write(1, bytes([byte]))
    time.sleep(0.02)
time.sleep(100)
"""

# Counts what the page sends to the kernel in the second that follows.
COUNT_SENT = """() => {
    const send = WebSocket.prototype.send;
    let sent = 0;
    WebSocket.prototype.send = function (data) { sent += 1; return send.call(this, data); };
    window.sent = new Promise(done => setTimeout(() => {
        WebSocket.prototype.send = send;
        done(sent);
    }, 1000));
}"""

# Escape sequences at random, a reset, and a megabyte without a line's end.
NOISE = """
import os, random, time
random.seed(1)
os.write(1, bytes(random.choices([*range(256), *[27] * 9], k=20000)))
os.write(1, b"\\x18\\x1bc")
data = b"x" * 1_000_000
while data:
    data = data[os.write(1, data):]
print("\\r\\nstill here", flush=True)
time.sleep(100)
"""

LINKS = """
import time
print("see http://example.org/page")
print("\\x1b]8;;javascript:alert(1)\\x1b\\\\trap\\x1b]8;;\\x1b\\\\", flush=True)
time.sleep(100)
"""

LABELLED = """
import time
for text, target in ("http://one.test/", "http://one.test/"), ("http://two.test/", "http://localhost:8888/two"):
    print(f"\\x1b]8;;{target}\\x1b\\\\{text}\\x1b]8;;\\x1b\\\\", flush=True)
time.sleep(100)
"""

KEEP_OPENED = "() => { window.opened = []; window.open = (...all) => { window.opened.push(all); }; }"

TERMINAL = "document.querySelector('.sandbox-nb-terminal').terminal"


def show(notebook, program):
    notebook.run(f"t = Terminal(python({program!r}))\nt")


def test_type_and_see_the_answer_at_the_size_of_the_widget(anywhere):
    anywhere.run("t = Terminal(shell(), height=14)\nt")
    anywhere.see(r"^\$")
    anywhere.type("echo $((6 * 7)); stty size\n")
    anywhere.see("^42$")
    rows, columns = anywhere.size()
    assert rows == 14
    anywhere.see(f"^{rows} {columns}$")


def test_a_full_screen_program_draws_right_and_again_after_a_resize(lab):
    show(lab, FULL_SCREEN)
    lab.see("it is")
    rows, columns = lab.size()
    lab.see(f"it is {rows} by {columns}")
    lab.page.set_viewport_size({"width": 800, "height": 900})
    try:
        lab.page.wait_for_function(f"before => {TERMINAL}.cols !== before", arg=columns)
        rows, columns = lab.size()
        lab.see(f"it is {rows} by {columns}")
        screen = lab.text().splitlines()
    finally:
        lab.page.set_viewport_size({"width": 1200, "height": 900})
    assert len(screen) == rows
    # The frame: corners and edges where they belong.
    assert len(screen[0]) == len(screen[-1]) == columns
    assert screen[1][0] == screen[1][-1] == "│"
    lab.type("q")
    lab.see_output("exited with status 0")


@pytest.mark.parametrize(("lines", "size"), [(4000, 100_000), (400_000, 11 << 20)], ids=["100 KB", "11 MiB"])
def test_a_paste_arrives_whole_and_in_brackets(either, lines, size):
    show(either, PASTE)
    either.see("ready")
    text = "".join(f"line {n} äöü 世界 🚀\r" for n in range(lines))
    either.paste(text)
    expected = b"\x1b[200~" + text.encode() + b"\x1b[201~"
    assert len(expected) > size
    either.see_output(f"{len(expected)} {hashlib.sha256(expected).hexdigest()}")


def test_text_that_comes_byte_by_byte_reads_as_what_it_is(lab):
    show(lab, BYTE_BY_BYTE)
    lab.see("ok$")
    assert lab.text() == "ä é 世界 🚀 e\u0301 ok"


def test_it_is_alive_while_a_cell_runs(anywhere):
    anywhere.run("t = Terminal(shell())\nt")
    anywhere.see(r"^\$")
    # ipykernel 7.4 would hand keys to the shell which sent last, and this one is busy then.
    anywhere.run("t.scrollback = 100; time.sleep(6)", cell=2, wait=False)
    anywhere.page.wait_for_timeout(500)
    anywhere.type("echo $((40 + 2))-alive\n")
    anywhere.see("^42-alive")
    running = anywhere.page.locator(".jp-InputPrompt", has_text="[*]")
    assert running.count() == 1
    running.wait_for(state="detached", timeout=20_000)


def test_control_c_stops_a_flood_at_once(either):
    either.run("t = Terminal(shell())\nt")
    either.see(r"^\$")
    either.type("yes\n")
    either.see("^y\ny\ny")
    either.page.wait_for_timeout(1000)
    either.page.keyboard.press("Control+c")
    either.page.keyboard.type('echo ba""ck\n')
    either.see("^back", timeout=10)


def test_broken_sequences_and_a_megabyte_on_one_line_do_no_harm(lab):
    show(lab, NOISE)
    lab.see("^still here")
    assert lab.errors == []


def test_the_least_size_there_is_works(lab):
    lab.run("t = Terminal(shell(), height=1)\nt")
    lab.see(r"\$")
    lab.type("stty size\n")
    lab.see(r"^1 \d+$")


def test_keys_reach_the_program_and_not_the_notebook(lab):
    lab.run("t = Terminal(LocalPty(['cat', '-v']))\nt")
    cells = lab.page.locator(".jp-Cell").count()
    lab.focus()
    lab.page.wait_for_timeout(300)
    # In command mode these would add cells, delete the selected one, and change its kind.
    for key in ("Escape", "a", "b", "d", "d", "m", "y", "Shift+M", "Control+b", "Enter"):
        lab.page.keyboard.press(key)
    lab.see(r"^\^\[abddmyM\^B$")
    assert lab.page.locator(".jp-Cell").count() == cells


def test_the_cursor_blinks_while_it_has_the_keyboard_and_no_animation_runs(lab):
    lab.run("t = Terminal(shell())\nt")
    lab.see(r"^\$")
    lab.focus()
    looks = set()
    for unlit in ("", ":not(.sandbox-nb-unlit)", ".sandbox-nb-unlit", ":not(.sandbox-nb-unlit)"):
        cursor = lab.page.wait_for_selector(f".sandbox-nb-terminal{unlit} .xterm-cursor-blink")
        background, state = cursor.evaluate(
            "cursor => [getComputedStyle(cursor).backgroundColor, getComputedStyle(cursor).animationPlayState]"
        )
        assert state == "paused", "one that runs costs sixty frames a second"
        looks.add(background)
    assert len(looks) == 2
    lab.page.keyboard.press("Control+Shift+Space")
    assert not lab.page.locator(".sandbox-nb-unlit").count()


def test_the_keyboard_finds_a_way_out(lab):
    lab.run("t = Terminal(shell())\nt")
    lab.see(r"^\$")
    lab.focus()
    inside = "document.querySelector('.sandbox-nb-terminal').contains(document.activeElement)"
    assert lab.page.evaluate(inside)
    lab.page.keyboard.press("Control+Shift+Space")
    assert not lab.page.evaluate(inside)
    # The notebook has the keyboard, in command mode: b adds a cell below, z takes it back.
    cells = "document.querySelectorAll('.jp-Notebook .jp-Cell').length"
    before = lab.page.evaluate(cells)
    lab.page.keyboard.press("b")
    lab.page.wait_for_function(f"{cells} === {before + 1}")
    lab.page.keyboard.press("z")
    lab.page.wait_for_function(f"{cells} === {before}")


def test_copy_takes_the_selection(lab):
    lab.run("t = Terminal(LocalPty(['sh', '-c', 'echo to be copied; sleep 100']))\nt")
    lab.see("^to be copied")
    lab.focus()
    lab.page.evaluate(f"""() => {{
        {TERMINAL}.select(0, 0, 5);
        document.addEventListener('copy', event => {{
            window.copied = event.clipboardData.getData('text/plain');
        }}, {{once: true}});
    }}""")
    lab.page.keyboard.press("Control+Shift+C")
    assert lab.page.evaluate("window.copied") == "to be"


def test_find_goes_through_the_scrollback_and_escape_closes_it(lab):
    lab.run("t = Terminal(LocalPty(['sh', '-c', 'seq 1 500; sleep 100']), height=10)\nt")
    lab.see("^500$")
    lab.focus()
    lab.page.keyboard.press("Control+Shift+F")
    lab.page.keyboard.type("123")
    lab.page.get_by_text("1/1").wait_for()
    assert 112 <= lab.page.evaluate(f"{TERMINAL}.buffer.active.viewportY") <= 122
    lab.page.keyboard.press("Escape")
    assert not lab.page.locator(".sandbox-nb-find").is_visible()
    assert lab.page.evaluate("document.activeElement.classList.contains('xterm-helper-textarea')")


def click(notebook, line, x):
    """Click at a line of the terminal's screen, ``x`` pixels from its left edge."""
    box = notebook.page.locator(".sandbox-nb-terminal .xterm-screen").bounding_box()
    row = box["height"] / notebook.size()[0]
    # xterm.js looks for links where the pointer has moved, not where it has appeared.
    for step in (0, 2):
        notebook.page.mouse.move(box["x"] + x + step, box["y"] + (line + 0.5) * row)
        notebook.page.wait_for_timeout(100)
    notebook.page.mouse.click(box["x"] + x, box["y"] + (line + 0.5) * row)
    notebook.page.wait_for_timeout(200)


def test_links_open_apart_and_only_web_pages(lab):
    show(lab, LINKS)
    lab.see("^trap")
    lab.page.evaluate(KEEP_OPENED)
    for line, x in enumerate((60, 10)):
        click(lab, line, x)
    assert lab.page.evaluate("window.opened") == [["http://example.org/page", "_blank", "noopener,noreferrer"]]


def test_a_link_that_says_another_target_than_it_has_is_asked_about(lab):
    show(lab, LABELLED)
    lab.see("^http://two")
    lab.page.evaluate(KEEP_OPENED)
    asked = []
    for answer in ("dismiss", "accept"):
        lab.page.once("dialog", lambda dialog, do=answer: (asked.append(dialog.message), getattr(dialog, do)()))
        click(lab, 1, 10)
        assert "http://localhost:8888/two" in asked.pop()
    assert lab.page.evaluate("window.opened.map(([uri]) => uri)") == ["http://localhost:8888/two"]
    click(lab, 0, 10)
    assert lab.page.evaluate("window.opened.map(([uri]) => uri)")[1:] == ["http://one.test/"]


@pytest.mark.parametrize("renderer", ["dom", "webgl"])
def test_it_is_drawn_by_whatever_was_asked_for_or_is_there(lab, renderer):
    lab.run(f"t = Terminal(shell(), renderer={renderer!r})\nt")
    lab.see(r"^\$")
    lab.type('echo dra""wn\n')
    lab.see("^drawn")
    canvases = lab.page.locator(".sandbox-nb-terminal .xterm-screen canvas").count()
    webgl = lab.page.evaluate("document.createElement('canvas').getContext('webgl2') !== null")
    assert (canvases > 0) == (renderer == "webgl" and webgl)


def test_options_can_be_changed_while_it_runs(lab):
    lab.run("t = Terminal(shell())\nt")
    lab.see(r"^\$")
    _, columns = lab.size()
    lab.run("t.font_size = 20; t.height = 10; t.scrollback = 7; t.screen_reader = True; t.readonly = True", cell=2)
    lab.page.wait_for_function(f"{TERMINAL}.rows === 10")
    assert lab.size()[1] < columns
    options = ["fontSize", "scrollback", "screenReaderMode", "disableStdin"]
    assert [lab.page.evaluate(f"{TERMINAL}.options.{option}") for option in options] == [20, 7, True, True]
    assert lab.page.locator(".xterm-accessibility").count() == 1
    lab.type("echo not this\n")
    lab.run("t.write('echo bu\"\"t this\\n')", cell=2)
    lab.see("^but this")
    assert "not" not in lab.text()


CHANGE_THEME = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"


def test_the_theme_is_the_pages(lab):
    lab.run("t = Terminal(shell())\nt")
    lab.see(r"^\$")
    options = f"{TERMINAL}.options"
    seen = {}
    try:
        for name in ("JupyterLab Dark", "JupyterLab Dark High Contrast", "JupyterLab Light"):
            lab.page.evaluate(CHANGE_THEME, name)
            lab.page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)
            lab.page.wait_for_timeout(300)
            seen[name] = lab.page.evaluate(
                f"[{options}.theme.background, {options}.theme.foreground, {options}.minimumContrastRatio]"
            )
    finally:
        lab.page.evaluate(CHANGE_THEME, "JupyterLab Light")
    assert seen["JupyterLab Dark High Contrast"] == ["#000000", "#ffffff", 7]
    assert seen["JupyterLab Light"][0] in ("white", "#fff", "#ffffff")
    assert seen["JupyterLab Light"][2] == seen["JupyterLab Dark"][2] == 4.5
    assert seen["JupyterLab Dark"][0] != seen["JupyterLab Light"][0]


def test_a_source_that_fails_leaves_a_calm_line_and_the_transcript(lab):
    lab.run("""
class Broken(LocalPty):
    def read(self):
        data = super().read()
        if b"now" in data: raise OSError("the cable is cut")
        return data
t = Terminal(Broken(["sh", "-c", "echo before; sleep 0.3; echo now; sleep 100"]))
t""")
    lab.see_output("[the cable is cut]")
    assert "before" in lab.output().inner_text()
    assert lab.page.locator(".sandbox-nb-terminal").count() == 0
    assert lab.errors == []


def test_a_key_is_one_message_on_the_wire_and_followed_by_a_nudge_on_the_comm(either):
    """Of a key that is not echoed nothing comes back that could stand for it."""
    either.run("t = Terminal(LocalPty(['sh', '-c', 'stty -echo; echo quiet; exec cat > /dev/null']))\nt")
    either.see("^quiet")
    either.wait_for_wire()
    either.focus()
    either.page.wait_for_timeout(1000)  # what was drawn is acknowledged
    either.page.evaluate(COUNT_SENT)
    either.page.keyboard.press("x")
    sent = either.page.evaluate("window.sent")
    assert sent == 1 if either.wired else sent > 1


def test_where_the_kernel_cannot_be_reached_it_calls_once_and_does_with_the_comm(lab):
    lab.page.evaluate(KEEP_WIRES, False)
    lab.run("t = Terminal(shell())\nt._wire.listen = lambda: None\nt")
    lab.see(r"^\$")
    lab.page.wait_for_function("window.wires[0]?.readyState === WebSocket.CLOSED")
    lab.type("echo $((40 + 2))\n")
    lab.see("^42")
    lab.page.wait_for_timeout(4000)  # one that was cut would be laid again by now
    assert lab.page.evaluate("window.wires.length") == 1
    assert lab.errors == []
