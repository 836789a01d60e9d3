"""A machine for people: parts of HTML, tables, small plots."""

from __future__ import annotations

import re

from sandbox_nb import sparkline
from sandbox_nb.hardware import AttachedDevice, Devices
from sandbox_nb.portrait import Portrait, page, table


def portrait(**fields):
    known = {"name": "web", "state": "running", "failure": "", "size": "1 processor", "boot": None}
    return Portrait(**{**known, "devices": Devices(), "forwards": [], "console": "", **fields})


def test_what_there_is_is_shown_and_what_there_is_not_is_no_box():
    found = portrait(forwards=[(8080, 80), (None, "/run/x.sock")], console="\n\nhello\n")._repr_html_()
    assert "127.0.0.1:8080" in found
    assert "the guest&#x27;s port 80" in found
    assert "the host&#x27;s /run/x.sock" in found
    assert "<pre>hello</pre>" in found
    assert "Devices" not in found


def test_as_text_it_has_a_line_for_each():
    devices = Devices([AttachedDevice("data", "disk", "qcow2", "/srv/d", "/dev/vda")])
    lines = str(portrait(devices=devices, forwards=[(8080, 80)], failure="gone")).splitlines()
    assert lines == [
        "web: running; 1 processor",
        "  gone",
        "  disk data: qcow2, /srv/d, /dev/vda",
        "  forward: 127.0.0.1:8080 to the guest's port 80",
    ]


def test_nothing_in_it_can_become_html():
    devices = Devices([AttachedDevice("<b>", "disk", "raw", "/<script>alert(1)</script> long enough", "")])
    found = portrait(devices=devices, console="<script>", failure="<i>")._repr_html_()
    assert "<script>" not in found
    assert "<b>" not in found.partition("<table>")[2]
    assert "&lt;i&gt;" in found


def test_a_live_page_has_a_place_for_every_part_hidden_while_it_is_empty():
    found = page({"head": "x"}, every_part=True)
    assert re.findall(r'data-part="(\w+)"', found) == re.findall(r'<section class="(\w+)"', found)
    assert '<section class="processes" hidden>' in found
    assert '<section class="head">' in found


def test_a_table_without_rows_is_nothing():
    assert table(("a",), []) == ""
    assert table(("a", "b"), [("1", "<u>2</u>")], raw_last=True).count("<u>2</u>") == 1


def points(svg, kind="polyline"):
    found = re.findall(rf'<{kind}[^>]* points="([^"]*)"', svg)
    return [[tuple(map(float, pair.split(","))) for pair in line.split()] for line in found]


def test_a_plot_ends_on_the_right_and_reaches_from_edge_to_edge():
    (line,) = points(sparkline.svg([[0, 5, 10]], top=10, room=3))
    assert line == [(0, 30), (60, 15), (120, 0)]
    (line,) = points(sparkline.svg([[1, 2]], room=61))
    assert line[-1] == (120, 0)
    assert line[0] == (118, 15)


def test_plots_of_nothing_and_of_one_value_and_over_the_top_are_drawn():
    assert points(sparkline.svg([[]])) == []
    assert points(sparkline.svg([[1.0]])) == []
    (flat,) = points(sparkline.svg([[0.0, 0.0]]))
    assert {y for _, y in flat} == {30}
    (high,) = points(sparkline.svg([[1.0, 9.0]], top=2))
    assert high[-1][1] == 0


def test_two_lines_are_told_apart():
    found = sparkline.svg([[1, 2], [2, 1]])
    assert len(points(found)) == len(points(found, "polygon")) == 2
    assert found.count('class="second"') == 2
