"""The documentation: it builds with no warning, says what the code says, and its examples are Python."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import FunctionType

import pytest

import sandbox_nb
from sandbox_nb.options import Options

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_it_builds_and_asks_nobody_else_for_anything(site):
    for page in site.rglob("*.html"):
        for address in re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="([^"]+)"', page.read_text()):
            assert not re.match(r"(?:https?:)?//", address), (page, address)


def test_every_public_name_is_described(site):
    text = (site / "reference" / "python" / "index.html").read_text()
    for room, names in sandbox_nb._ROOMS.items():
        for name in names:
            assert f'id="sandbox_nb.{room}.{name}"' in text, name


def verbs(public):
    """The methods and properties that a class has by our doing, inherited ones included."""
    ours = [part for part in inspect.getmro(public) if part.__module__.startswith("sandbox_nb.")]
    found = {name: value for part in ours for name, value in vars(part).items() if not name.startswith("_")}
    return [name for name, value in found.items() if isinstance(value, (FunctionType, property))]


def test_every_verb_is_described_with_its_class_also_an_inherited_one(site):
    text = (site / "reference" / "python" / "index.html").read_text()
    for room, names in sandbox_nb._ROOMS.items():
        for name in names:
            public = getattr(sandbox_nb, name)
            for verb in verbs(public) if inspect.isclass(public) else ():
                assert f'id="sandbox_nb.{room}.{name}.{verb}"' in text, (name, verb)


def test_every_option_is_in_the_table(site):
    text = (site / "reference" / "options" / "index.html").read_text()
    for name in Options.__dataclass_fields__:
        assert f"<code>{name}</code>" in text


def test_help_texts_are_there(site):
    assert "%%sandbox run" in (site / "reference" / "magics" / "index.html").read_text()
    assert "sandbox-nb doctor" in (site / "reference" / "cli" / "index.html").read_text()


def test_every_room_and_every_dependency_has_its_line():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = {f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / "sandbox_nb").glob("[!_]*")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    names = {re.split(r"[><=;\[ ]", requirement)[0] for requirement in needed}
    assert [name for name in sorted((rooms | names) - {"py.typed"}) if f"`{name}`" not in text] == []


def test_pictures_are_small():
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 150_000, picture


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_are_python(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        lines = [line for line in block.splitlines() if not line.startswith("%")]
        ast.parse("\n".join(lines))
