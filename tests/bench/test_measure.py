"""Which sections are measured, and what becomes of one that is not."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import types

import pytest

from sandbox_nb import bench, cli
from sandbox_nb.bench import Row, Skipped, bare_boot, peers
from sandbox_nb.bench.targets import TARGETS
from sandbox_nb.errors import InvalidArgument

ONE = Row.of([1.0], "s")


@pytest.fixture
def section(monkeypatch):
    """Makes a section with such rows; they are ``found``, or that is raised."""
    monkeypatch.setattr(bench, "SECTIONS", ())
    monkeypatch.setattr(bench, "PEERS", ())

    def add(title, names, found=None, *, peer=False):
        module = types.ModuleType(f"sandbox_nb.bench.{title}", f"How {title} is measured.")
        module.NAMES = names

        def rows():
            if isinstance(found, Exception):
                raise found
            return dict.fromkeys(names, ONE)

        module.rows = rows
        monkeypatch.setitem(sys.modules, module.__name__, module)
        kind = "PEERS" if peer else "SECTIONS"
        monkeypatch.setattr(bench, kind, (*getattr(bench, kind), title))

    return add


def test_every_target_is_that_of_a_row_and_every_row_has_a_name_of_its_own():
    sections = (*bench.SECTIONS, *bench.PEERS)
    modules = [importlib.import_module(f"sandbox_nb.bench.{name}") for name in sections]
    names = [row for module in modules for row in module.NAMES]
    assert set(TARGETS) <= set(names)
    assert len(names) == len(set(names))
    assert not set(names) & set(sections)
    assert all(module.__doc__ for module in modules)


def test_rows_and_sections_are_chosen_by_name(section):
    section("first", ("a", "b"))
    section("second", ("c", "d"))
    assert list(bench.measure().rows) == ["a", "b", "c", "d"]
    assert list(bench.measure(["second", "b"]).rows) == ["b", "c", "d"]
    with pytest.raises(InvalidArgument, match=r"'e'.*first, second.*a, b, c, d"):
        bench.measure(["a", "e"])


def test_peers_are_measured_when_asked_for(section):
    section("first", ("a",))
    section("other", ("b",), peer=True)
    assert list(bench.measure().rows) == ["a"]
    assert list(bench.measure(peers=True).rows) == ["a", "b"]
    assert list(bench.measure(["other"]).rows) == ["b"]


def test_a_section_that_fails_leaves_the_others_their_figures(section):
    section("first", ("a",), Skipped("no such program"))
    section("second", ("b",), RuntimeError("it broke"))
    section("third", ("c",))
    told = []
    report = bench.measure(tell=told.append)
    assert list(report.rows) == ["c"]
    assert report.skipped == {"first": "no such program"}
    assert report.failed == {"second": "RuntimeError: it broke"}
    assert any("no such program" in line for line in told)
    assert any("Traceback" in line for line in told)


def test_the_command_line_prints_writes_and_tells_by_its_status(section, tmp_path, capsys):
    section("first", ("exec_ms",))
    assert cli.main(["bench", "--json", "--results", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["exec_ms"]["n"] == 1
    assert "How first is measured." in (tmp_path / "RESULTS.md").read_text()
    section("second", ("b",), RuntimeError("it broke"))
    assert cli.main(["bench"]) == 1
    assert "second was not measured: RuntimeError: it broke" in capsys.readouterr().out


def test_a_peer_takes_turns_with_ours(monkeypatch):
    calls = []
    monkeypatch.setattr(peers, "live", lambda **_: calls.append("ours") or types.SimpleNamespace(stopped=0.5))
    found = peers.beside_ours("x", lambda: calls.append("x") or 20.0)
    assert calls == ["x", *["ours", "x"] * peers.ROUNDS]
    assert found["x_over_ours"].median == 40
    assert tuple(found) == peers.names("x")


def test_a_peer_that_fails_is_skipped_with_its_own_words(monkeypatch):
    with pytest.raises(Skipped, match="it failed here: no kernel"):
        peers.run([sys.executable, "-c", "import sys; sys.exit('no kernel')"], "it")
    monkeypatch.setattr(peers, "TIMEOUT", 0.2)
    with pytest.raises(Skipped, match="did not finish"):
        peers.run(["sleep", "10"], "it")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="it is a program for x86-64")
def test_the_init_of_a_bare_boot_writes_its_mark_and_stays(tmp_path):
    program = tmp_path / "init"
    program.write_bytes(bare_boot._do_nothing())
    program.chmod(0o755)
    with subprocess.Popen([program], stdout=subprocess.PIPE) as process:
        assert process.stdout.read(1) == bare_boot._MARK
        assert process.poll() is None
        process.kill()
