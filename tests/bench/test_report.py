"""What is made of measurements: rows, verdicts, lines, a page and a plot."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from sandbox_nb.bench import Report, Row, plot
from sandbox_nb.bench.targets import TARGETS, Target


def report(**more):
    sections = {
        "machine": {"warm_ready_s": Row(0.18, 0.17, 0.3, 20, "s"), "exec_ms": Row(11.9, 7.65, 20, 100, "ms")},
        "ttrpc": {
            "ttrpc_rate_ratio": Row(8, 7, 9, 11, "ratio"),
            "grpcio_rate_64": Row(4312.6, 4000, 5000, 11, "1/s"),
        },
    }
    began = datetime(2026, 11, 25, 1, 40, tzinfo=UTC)
    return Report("x86_64, 2 processors", "tcg", began, (0.25, 0.5, 0.75), sections, **more)


def test_a_row_sums_up_its_samples():
    assert Row.of([3, 1, 10], "s") == Row(3, 1, 10, 3, "s")


def test_a_ratio_is_of_neighbours():
    assert Row.ratio([2, 30], [1, 10]) == Row(2.5, 2, 3, 2, "ratio")
    with pytest.raises(ValueError):
        Row.ratio([1, 2], [1])


@pytest.mark.parametrize(
    ("target", "median", "verdict", "share"),
    [
        (Target("", 8), 8, "met", 1),
        (Target("", 8), 12, "missed", 1.5),
        (Target("", 4, at_least=True), 4, "met", 1),
        (Target("", 4, at_least=True), 8, "met", 0.5),
        (Target("", 4, at_least=True), 3.2, "missed", 1.25),
        (Target("", 4, at_least=True), 0, "missed", math.inf),
        (Target("", 0), 0, "met", 0),
        (Target("", 0), 0.1, "missed", math.inf),
    ],
)
def test_a_target_judges_both_ways(target, median, verdict, share):
    assert target.verdict(median) == verdict
    assert target.share(median) == share


def test_json_keeps_its_format():
    found = report().as_json()
    assert list(found) == ["machine", "accelerator", "rows"]
    assert found["rows"]["exec_ms"] == {"median": 11.9, "min": 7.65, "max": 20, "n": 100, "unit": "ms"}


def test_lines_say_met_and_missed_and_what_was_not_measured():
    lines = report(skipped={"vsock": "no gcc"}, failed={"terminal": "Error: two\nlines"}).as_text().splitlines()
    (ready,) = (line for line in lines if line.startswith("warm_ready_s"))
    (exec_,) = (line for line in lines if line.startswith("exec_ms"))
    (free,) = (line for line in lines if line.startswith("grpcio_rate_64"))
    assert ready.endswith("≤ 0.25: met")
    assert exec_.endswith("≤ 8: missed")
    assert "4313 1/s" in free
    assert free.endswith("n = 11)")
    assert lines[-2:] == ["vsock was not measured: no gcc", "terminal was not measured: Error: two lines"]


def test_the_page_says_everything(tmp_path):
    report(skipped={"vsock": "no gcc"}).write(tmp_path / "new")
    page = (tmp_path / "new" / "RESULTS.md").read_text()
    for words in (
        "x86_64, 2 processors",
        "tcg",
        "2026-11-25 01:40 UTC",
        "0.25, 0.50, 0.75",
        "**2 of 3 targets are met.**",
        f"- missed: `exec_ms` ({TARGETS['exec_ms'].what}): 11.9 ms, target ≤ 8",
        "- not measured: vsock: no gcc",
        "![The share of what is allowed that each row takes](results.svg)",
        "| exec_ms | `sandbox-nb bench exec_ms` | 11.9 | 7.65 … 20 | 100 | ms | ≤ 8 | missed |",
        "| ttrpc_rate_ratio | `sandbox-nb bench ttrpc_rate_ratio` | 8 | 7 … 9 | 11 | ratio | ≥ 4 | met |",
    ):
        assert words in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {9}


def test_the_plot_has_a_bar_for_each_row_with_a_target(tmp_path):
    report().write(tmp_path)
    root = ElementTree.fromstring((tmp_path / "results.svg").read_text())
    bars = root.findall(".//{*}rect")
    assert [bar.get("class") for bar in bars] == ["met", "missed", "met"]
    line = float(root.find("{*}line").get("x1"))
    ends = [float(bar.get("x")) + float(bar.get("width")) for bar in bars]
    assert [end <= line for end in ends] == [True, False, True]


def test_a_bar_never_leaves_the_picture():
    root = ElementTree.fromstring(plot.svg("a < b", [plot.Bar("<x>", "1 & 2", math.inf, 0.0, math.inf)]))
    width = float(root.get("viewBox").split()[2])
    bar, spread = root.find(".//{*}rect"), root.find("{*}g/{*}line")
    assert float(bar.get("x")) + float(bar.get("width")) < width
    assert float(spread.get("x1")) < float(spread.get("x2")) < width
    assert root.get("aria-label") == "a < b"
