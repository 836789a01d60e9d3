from __future__ import annotations

import json
import os

import pytest

from sandbox_nb.notebook.terminal_cast import Cast


def read(path):
    header, *events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return header, events


def test_the_header_and_events_are_those_of_asciinema_2(tmp_path):
    path = tmp_path / "x.cast"
    cast = Cast(path, 24, 80)
    cast.output(b"hello \x1b[31mred\r\n")
    cast.resize(30, 100)
    cast.close()
    header, events = read(path)
    assert header["version"] == 2
    assert (header["width"], header["height"]) == (80, 24)
    assert isinstance(header["timestamp"], int)
    assert [event[1:] for event in events] == [["o", "hello \x1b[31mred\r\n"], ["r", "100x30"]]
    assert all(isinstance(event[0], float | int) for event in events)
    assert events[0][0] <= events[1][0]


def test_a_character_that_comes_byte_by_byte_is_one(tmp_path):
    path = tmp_path / "x.cast"
    cast = Cast(path, 24, 80)
    for byte in "é世🚀".encode():
        cast.output(bytes([byte]))
    cast.close()
    assert "".join(event[2] for event in read(path)[1]) == "é世🚀"


def test_each_event_is_in_the_file_when_it_has_happened(tmp_path):
    path = tmp_path / "x.cast"
    cast = Cast(path, 24, 80)
    cast.output(b"now")
    assert read(path)[1][0][2] == "now"
    cast.close()


def test_after_the_end_nothing_is_written(tmp_path):
    path = tmp_path / "x.cast"
    cast = Cast(path, 24, 80)
    cast.close()
    cast.close()
    cast.output(b"late")
    assert read(path)[1] == []


def test_a_file_that_cannot_be_made_is_said(tmp_path):
    with pytest.raises(OSError, match="no/such"):
        Cast(tmp_path / "no" / "such" / "x.cast", 24, 80)


def test_a_full_disk_is_said_and_leaves_no_file_open():
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space left"):
        Cast("/dev/full", 24, 80)
    assert len(os.listdir("/proc/self/fd")) == before
