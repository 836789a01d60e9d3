from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from sandbox_nb.vsock import packet, trace
from vsock.model import data_of


def tshark(path, *fields):
    command = ["tshark", "-r", str(path), "-T", "fields", *(word for field in fields for word in ("-e", field))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_tshark_reads_every_field(rig, tmp_path):
    path = tmp_path / "trace.pcapng"
    rig.device.trace(str(path))
    wire = rig.open(pipelined=b"to the guest")
    wire.packets()
    wire.send(packet.RW, b"to the host", buf_alloc=4096, fwd_cnt=12)
    wire.send(packet.CREDIT_REQUEST)
    wire.host.close()
    wire.packets()
    wire.send(packet.RST)
    rig.device.trace()
    rows = tshark(
        path, "vsock.src_cid", "vsock.dst_cid", "vsock.src_port", "vsock.dst_port", "vsock.op", "vsock.virtio.op",
        "vsock.virtio.len", "vsock.virtio.buf_alloc", "vsock.virtio.fwd_cnt", "_ws.malformed",
    )  # fmt: skip
    ops = [int(row[5]) for row in rows]
    assert ops == [
        packet.REQUEST,
        packet.RESPONSE,
        packet.RW,
        packet.RW,
        packet.CREDIT_REQUEST,
        packet.CREDIT_UPDATE,
        packet.SHUTDOWN,
        packet.RST,
    ]
    assert not any(row[9:] and row[9] for row in rows)
    assert rows[0][:4] == ["2", "3", str(wire.host_port), "5000"]
    assert rows[3][6:9] == ["11", "4096", "12"]


def test_blocks_are_whole_and_of_four_byte_words(rig, tmp_path):
    path = tmp_path / "trace"
    rig.device.trace(str(path))
    wire = rig.open()
    for size in range(1, 9):
        wire.host.sendall(bytes(size))
        wire.packets()
    data = path.read_bytes()
    blocks = 0
    while data:
        size = int.from_bytes(data[4:8], "little")
        assert size % 4 == 0
        assert data[size - 4 : size] == data[4:8]
        data = data[size:]
        blocks += 1
    assert blocks == 2 + 2 + 8


def test_lines_are_for_people(rig, capsys):
    rig.device.trace(lines=True)
    rig.open().host.sendall(b"hello")
    rig.settle()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "2:1073741824 > 3:5000 REQUEST len=0" in lines[0]
    assert "RW len=5" in lines[2]


def test_it_is_switched_while_the_device_runs(rig, tmp_path):
    wire = rig.open()
    assert rig.device.tap.on_packet is None
    for turn in ("one", "two"):
        rig.device.trace(str(tmp_path / turn))
        wire.host.sendall(b"seen")
        wire.packets()
        rig.device.trace()
        assert rig.device.tap.on_packet is None
        wire.host.sendall(b"unseen")
        wire.packets()
        assert (tmp_path / turn).read_bytes().count(b"seen") == 1
        assert b"unseen" not in (tmp_path / turn).read_bytes()


def test_a_file_that_cannot_be_made_leaves_the_running_trace_alone(rig, tmp_path):
    rig.device.trace(str(tmp_path / "good"))
    with pytest.raises(OSError, match="Is a directory"):
        rig.device.trace(str(tmp_path))
    assert rig.device.tap.on_packet is not None


def test_a_trace_that_fails_ends_and_the_bytes_go_on(rig, tmp_path, monkeypatch, capsys):
    wire = rig.open()
    rig.device.trace(str(tmp_path / "trace"))

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(trace.os, "writev", full)
    wire.host.sendall(b"unharmed")
    assert data_of(wire.packets()) == b"unharmed"
    assert "No space left" in capsys.readouterr().err
    assert rig.device.tap.on_packet is None


def test_a_file_can_hold_the_first_bytes_of_each_payload_alone_and_is_read_back(rig, tmp_path):
    path = tmp_path / "trace"
    rig.device.trace(str(path), snap=3)
    rig.open(pipelined=b"hello").packets()
    rig.device.trace()
    found = list(trace.packets(path.read_bytes()))
    assert [(header.op, header.len, payload) for _, header, payload in found] == [
        (packet.REQUEST, 0, b""),
        (packet.RESPONSE, 0, b""),
        (packet.RW, 5, b"hel"),
    ]
    times = [nanoseconds for nanoseconds, _, _ in found]
    assert times == sorted(times)
    torn = path.read_bytes()[:-1]
    assert len(list(trace.packets(torn))) == 2


def test_a_file_ends_before_it_is_longer_than_it_may_be(rig, tmp_path, capsys):
    path = tmp_path / "trace"
    wire = rig.open()
    rig.device.trace(str(path), limit=1000)
    for _ in range(20):
        wire.host.sendall(bytes(100))
        wire.packets()
    assert "the length it may have" in capsys.readouterr().err
    assert 0 < len(list(trace.packets(path.read_bytes()))) < 20
    assert path.stat().st_size <= 1000 + len(trace.preamble())
