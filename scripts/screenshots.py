"""Pictures of what is to be seen in a notebook, made anew: ``python scripts/screenshots.py [NAME …]``.

Each entry of SHOTS acts on a notebook in a real JupyterLab and returns the part of the page that makes the picture
of its name. A picture is one and a half pixels to the point: sharp where it is shown small, and small itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox_nb.bench.terminal_page import Server, browser, open_notebook, run_cell

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

FOLDER = Path(__file__).parent.parent / "docs" / "images"

_SCREEN_HAS = """wanted => {
    const buffer = document.querySelector('.sandbox-nb-terminal')?.terminal?.buffer.active;
    const rows = [];
    for (let row = 0; row < (buffer?.length ?? 0); row++) rows.push(buffer.getLine(row).translateToString(true));
    return new RegExp(wanted, 'm').test(rows.join('\\n'));
}"""


class Stage:
    """A notebook of these cells, run one after the other, with nothing around it."""

    def __init__(
        self, page: Page, server: Server, cells: Sequence[str], *, theme: str = "JupyterLab Light"
    ) -> None:
        self.page = page
        server.write("notebook.ipynb", cells)
        open_notebook(page, server, "notebook.ipynb")
        command = "([name, args]) => window.jupyterapp.commands.execute(name, args)"
        page.evaluate(command, ["apputils:change-theme", {"theme": theme}])
        page.evaluate(command, ["application:toggle-left-area", {}])
        for index in range(len(cells)):
            run_cell(page, index)

    def type(self, text: str, until: str) -> None:
        """Type into the terminal, and wait until it shows a match of ``until``."""
        self.page.locator(".sandbox-nb-terminal .xterm-screen").click()
        self.page.keyboard.type(text)
        self.see(until)

    def see(self, wanted: str) -> None:
        """Wait until the terminal shows a match of this regular expression."""
        self.page.wait_for_function(_SCREEN_HAS, arg=wanted)

    def cell(self, index: int) -> Locator:
        """A cell with its outputs."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)


def terminal(page: Page, server: Server) -> Locator:
    """A shell in the machine."""
    stage = Stage(page, server, ["%load_ext sandbox_nb\n%sandbox start", "%sandbox terminal --height 17"])
    stage.see("root@sandbox")
    stage.type("clear; uname -sr; free -m; ls -l --color=always / | head -11\n", "lib")
    return stage.cell(1)


def terminal_dark(page: Page, server: Server) -> Locator:
    """A program that has the whole screen, in the dark theme."""
    cells = ["%load_ext sandbox_nb\n%sandbox start", '%sandbox terminal --command "top -d 1" --height 17']
    stage = Stage(page, server, cells, theme="JupyterLab Dark")
    stage.see("Load average")
    return stage.cell(1)


def notebook(page: Page, server: Server) -> Locator:
    """A notebook that starts a machine, runs a cell in it and opens a terminal."""
    page.set_viewport_size({"width": 1120, "height": 760})
    cells = [
        "%load_ext sandbox_nb\n%sandbox start --cpus 2 --memory 512",
        '%%sandbox run\nuname -a\necho "hello from another kernel"',
        "%sandbox terminal --height 7",
    ]
    stage = Stage(page, server, cells)
    stage.see("root@sandbox")
    stage.type("clear; free -m; ls --color /\n", "usr")
    return page.locator(".jp-WindowedPanel-viewport, .jp-WindowedPanel-inner").first


def dashboard(page: Page, server: Server) -> Locator:
    """A machine that works, watched."""
    page.set_viewport_size({"width": 900, "height": 1400})
    work = "%sandbox run --bg --out work sh -c 'while :; do gzip -c /bin/busybox > /dev/null; done'"
    setup = "%load_ext sandbox_nb\n%sandbox start --cpus 2 --memory 512 --share work=."
    stage = Stage(page, server, [f"{setup}\n{work}\n%sandbox forward 0:80", "%sandbox status --live"])
    page.wait_for_timeout(20_000)
    return stage.cell(1)


def panel(page: Page, server: Server) -> Locator:
    """The form for the options of a machine."""
    page.set_viewport_size({"width": 900, "height": 1400})
    stage = Stage(page, server, ["%load_ext sandbox_nb", "%sandbox config --cpus 2 --memory 512 --share src=.,ro"])
    return stage.cell(1)


def timeline(page: Page, server: Server) -> Locator:
    """Where the time of a start went."""
    return Stage(page, server, ["%load_ext sandbox_nb\n%sandbox start", "%sandbox timeline"]).cell(1)


SHOTS: dict[str, Callable[[Page, Server], Locator]] = {
    "notebook": notebook,
    "dashboard": dashboard,
    "panel": panel,
    "timeline": timeline,
    "terminal": terminal,
    "terminal-dark": terminal_dark,
}


def main() -> None:
    """Make the pictures that were named, or all."""
    parser = argparse.ArgumentParser(description="Make the pictures for the documentation anew.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(SHOTS)}; all when not said")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they go")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(SHOTS):
        parser.error(f"there is no picture {', '.join(sorted(unknown))}; there are {', '.join(SHOTS)}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        for name in arguments.names or SHOTS:
            page = chromium.new_page(viewport={"width": 900, "height": 760}, device_scale_factor=1.5)
            with Server() as server:
                part = SHOTS[name](page, server)
                page.wait_for_timeout(1000)
                part.screenshot(path=arguments.folder / f"{name}.png")
            page.close()
            print(arguments.folder / f"{name}.png")


if __name__ == "__main__":
    main()
