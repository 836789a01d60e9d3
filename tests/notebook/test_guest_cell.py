"""The program of a ``%%sandbox python`` cell, in this Python: no machine is needed to see what it does."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from sandbox_nb.notebook.magics import guest_cell


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a cell as the guest does; returns the exit status and the file of its values."""

    def run(code, *wanted, **values):
        place = tmp_path / "values.json"
        cell = json.dumps({"code": code, "values": values, "wanted": wanted})
        monkeypatch.setattr(sys, "stdin", io.StringIO(cell))
        monkeypatch.setattr(sys, "argv", ["-c", str(place)])
        monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
        return guest_cell.main(), place

    return run


def test_values_go_in_and_those_that_are_wanted_come_out(run, capsys):
    status, place = run("total = sum(numbers)\nprint(__name__, total)", "total", "numbers", numbers=[1, 2, 3])
    assert status == 0
    assert json.loads(place.read_text()) == {"total": 6, "numbers": [1, 2, 3]}
    assert capsys.readouterr().out == "__main__ 6\n"


def test_no_file_is_made_for_nothing(run):
    status, place = run("x = 1")
    assert status == 0
    assert not place.exists()


@pytest.mark.parametrize(
    ("code", "shown", "last"),
    [
        ("def f():\n    return 1 / 0\nf()", "return 1 / 0", "ZeroDivisionError: division by zero"),
        ("x =", "x =", "SyntaxError: invalid syntax"),
        ("raise KeyboardInterrupt", "raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_a_traceback_is_of_the_cell_alone_and_shows_its_lines(run, capsys, code, shown, last):
    status, place = run(code, "x")
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert status == 1
    assert not place.exists()
    assert all(line.startswith('File "<cell>"') for line in lines if line.startswith("File"))
    assert shown in lines
    assert lines[-1] == last


LOOKED_FOR_BY_NAME = """
from __future__ import annotations
import dataclasses, multiprocessing, pickle, typing
@dataclasses.dataclass
class Point:
    count: typing.ClassVar[int] = 0
    x: int = 0
    next: Point | None = None
    def twice(self):
        return Point(2 * self.x)
fields = [field.name for field in dataclasses.fields(Point)]
hinted = typing.get_type_hints(Point)["next"] == Point | None
copied = pickle.loads(pickle.dumps(Point(3))) == Point(3)
with multiprocessing.get_context("fork").Pool(1) as pool:
    doubled = [point.x for point in pool.map(Point.twice, [Point(1), Point(2)])]
"""


def test_what_the_cell_defines_is_found_by_its_name(run):
    status, place = run(LOOKED_FOR_BY_NAME, "fields", "hinted", "copied", "doubled")
    assert status == 0
    found = {"fields": ["x", "next"], "hinted": True, "copied": True, "doubled": [2, 4]}
    assert json.loads(place.read_text()) == found


def test_the_cell_has_no_future_feature_that_it_does_not_ask_for(run):
    _, place = run("def f(x: int): pass\nname = f.__annotations__['x'].__name__", "name")
    assert json.loads(place.read_text()) == {"name": "int"}


@pytest.mark.parametrize("end", ["raise SystemExit", "import sys; sys.exit(0)"])
def test_a_cell_that_ends_itself_well_hands_out_its_values(run, end):
    status, place = run(f"x = 1\n{end}", "x")
    assert status == 0
    assert json.loads(place.read_text()) == {"x": 1}


def test_the_exit_status_of_the_cell_is_its_own(run):
    with pytest.raises(SystemExit) as caught:
        run("import sys; sys.exit(7)")
    assert caught.value.code == 7


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("y = 1", "--out x: the cell does not set it"),
        ("x = {1, 2}", "--out x: Object of type set is not JSON serializable; values cross as JSON"),
        ("x = []; x.append(x)", "--out x: Circular reference detected; values cross as JSON"),
    ],
)
def test_a_value_that_cannot_be_had_ends_it_by_name(run, code, said):
    with pytest.raises(SystemExit, match=said) as caught:
        run(code, "x")
    assert str(caught.value) == said


def test_it_needs_nothing_but_itself(tmp_path):
    with open(guest_cell.__file__) as file:
        program = [sys.executable, "-I", "-S", "-c", file.read(), str(tmp_path / "out")]
    cell = json.dumps({"code": "x = y + 1", "values": {"y": 1}, "wanted": ["x"]})
    subprocess.run(program, input=cell, text=True, check=True)
    assert json.loads((tmp_path / "out").read_text()) == {"x": 2}
