"""The picture of a start, as plain data in and text out."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from sandbox_nb import timeline

PHASES = {"prepare": 0.001, "restore": 0.083, "dial": 0.083, "configure": 0.03}
SVG = "{http://www.w3.org/2000/svg}"


def drawn(phases, title="warm start"):
    return ElementTree.fromstring(timeline.svg(title, phases))


def test_every_phase_has_its_name_its_meaning_and_its_time():
    groups = drawn(PHASES).findall(f"{SVG}g")
    assert [[text.text for text in group.findall(f"{SVG}text")] for group in groups] == [
        ["prepare", "1 ms"],
        ["restore", "83 ms"],
        ["dial", "83 ms"],
        ["configure", "30 ms"],
    ]
    assert [group.find(f"{SVG}title").text for group in groups] == [timeline.MEANING[name] for name in PHASES]


def test_bars_are_as_long_as_the_time_and_follow_each_other():
    bars = [bar.attrib for bar in drawn({"boot": 1.0, "dial": 3.0}).iter(f"{SVG}rect")]
    (first, second) = [(float(bar["x"]), float(bar["width"])) for bar in bars]
    assert second[1] == pytest.approx(3 * first[1], abs=0.2)
    assert second[0] == pytest.approx(first[0] + first[1], abs=0.2)


def test_nothing_sticks_out_and_the_shortest_can_be_seen():
    picture = drawn({"a": 1e-9, "b": 100.0})
    width, height = map(float, picture.attrib["viewBox"].split()[2:])
    for bar in picture.iter(f"{SVG}rect"):
        assert float(bar.attrib["width"]) >= 1
        assert float(bar.attrib["x"]) + float(bar.attrib["width"]) + timeline._TIMES <= width + 1.1
        assert float(bar.attrib["y"]) + float(bar.attrib["height"]) <= height


def test_text_takes_the_colour_of_the_page():
    assert "currentColor" in timeline.svg("x", PHASES)
    assert "<style" not in timeline.svg("x", PHASES)  # it would be the whole page's


def test_words_are_no_markup():
    assert drawn({"<b>": 1.0}, title='"<&')[0].text == '"<&'
    assert drawn({}, title="nothing yet") is not None


def test_times_are_said_as_people_say_them():
    assert [timeline.duration(seconds) for seconds in (0.0004, 0.0832, 0.9996, 1.927)] == [
        "0 ms",
        "83 ms",
        "1.00 s",
        "1.93 s",
    ]
