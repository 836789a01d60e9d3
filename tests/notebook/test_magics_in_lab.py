"""The magics in JupyterLab, in a real browser: how output looks, completion, help."""

from __future__ import annotations

import pytest

from sandbox_nb.bench import Skipped
from sandbox_nb.bench.terminal_page import Server, browser, open_notebook, run_cell

pytestmark = [pytest.mark.vm, pytest.mark.browser]

BAR = "i=0; while [ $i -le 300 ]; do printf '\\r%d of 300 \\033[32mdone\\033[0m\\033[K' $i; i=$((i+1)); done"
CELLS = [
    "%load_ext sandbox_nb\n%sandbox start",
    f"%%sandbox run\n{BAR}; printf '\\r\\033[Kend\\n'",
    "%%sandbox run --no-raise\nprintf '\\033[31mred\\033[0m plain\\n'; echo error >&2",
    "%%sandbox run --out r\nyes 0123456789 | head -c 4000000",
    "%sandbox start?",
    "%sandbox strat",
    "%sandbox trace on\n%sandbox run true\n%sandbox trace off",
    "%sandbox trace show",
    "",
]


_OUTPUT = """index => {
    const cell = document.querySelectorAll('.jp-Notebook .jp-Cell')[index];
    return [...cell.querySelectorAll('.jp-OutputArea-output')].map(
        one => [one.dataset.mimeType.split('.').at(-1), one.innerText, one.innerHTML]);
}"""

# What the cells of tables hold that are too narrow for it: it would be drawn over the next one.
_CROWDED = """index => {
    const cell = document.querySelectorAll('.jp-Notebook .jp-Cell')[index];
    const narrow = [...cell.querySelectorAll('td')].filter(one => one.scrollWidth > one.clientWidth);
    return narrow.map(one => one.innerText);
}"""


@pytest.fixture(scope="module")
def page():
    """A notebook of CELLS, each of which has run.

    ``outputs`` is what each showed: type, text and HTML; ``crowded`` what does not fit its place in a table.
    """
    try:
        with browser() as chromium, Server() as server:
            page = chromium.new_page(viewport={"width": 1200, "height": 1200})
            server.write("magics.ipynb", CELLS)
            open_notebook(page, server, "magics.ipynb")
            page.outputs, page.crowded = [], []
            for index in range(len(CELLS) - 1):
                run_cell(page, index)
                # At once: JupyterLab takes cells that are out of sight off the page.
                page.outputs.append(page.evaluate(_OUTPUT, index))
                page.crowded.append(page.evaluate(_CROWDED, index))
            yield page
            page.close()
    except Skipped as reason:
        pytest.skip(str(reason))


def test_a_progress_bar_ends_as_one_line(page):
    ((_, text, _),) = page.outputs[1]
    assert text.strip() == "end"


def test_the_table_of_a_trace_has_room_for_what_it_says(page):
    ((_, text, _),) = page.outputs[7]
    assert "Process.Start request" in text
    assert page.crowded[7] == []


def test_colours_and_errors_look_like_it(page):
    out, err = page.outputs[2]
    assert '<span class="ansi-red-fg">red</span> plain' in out[2]
    assert (err[0], err[1].strip()) == ("stderr", "error")


def test_megabytes_are_a_short_cell(page):
    text = "".join(text for _, text, _ in page.outputs[3])
    assert "MB not shown; all of it is in /" in text
    assert len(text) < 100_000
    assert "rate exceeded" not in text


def test_help_and_errors_are_readable(page):
    assert page.outputs[4][0][1].startswith("usage: %sandbox start [OPTION]...")
    ((kind, text, _),) = page.outputs[5]
    assert kind == "error" or "stderr" in kind
    assert text.strip() == "UsageError: %sandbox: argument COMMAND: 'strat' is not known; did you mean start?"


def test_tab_completes(page):
    editor = page.locator(".jp-Notebook .jp-Cell").nth(len(CELLS) - 1).locator(".cm-content")
    editor.scroll_into_view_if_needed()
    editor.click()
    page.keyboard.type("%sandbox stat")
    page.keyboard.press("Tab")
    page.locator(".jp-Completer-item", has_text="status").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.innerText.trim() === '%sandbox status'")
