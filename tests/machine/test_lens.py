"""What crosses to and from a real machine, on every layer; and what it costs in statistics."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile

import pytest

from sandbox_nb import AsyncSandbox, FailedPrecondition, Filesystem, InvalidArgument
from sandbox_nb.stats import rates


def test_a_call_its_packets_and_qmp_in_one_order(own, tmp_path):
    own.start()
    with own.trace() as lens:
        own.run("echo seen")
        own.attach(Filesystem("share", tmp_path))
    own.run("echo unseen")
    found = lens.crossings()
    assert [row.time_ns for row in found] == sorted(row.time_ns for row in found)
    assert {row.layer for row in found} == {"ttrpc", "vsock", "qmp"}
    (asked,) = found.only(match="echo seen", layers=["ttrpc"])
    assert asked.what == "Process.Start request"
    assert asked.to_guest
    assert any(row.what == "RW" and "seen" in row.detail for row in found.only(layers=["vsock"]))
    assert found.only(match="device_add", layers=["qmp"])
    assert not found.only(match="unseen")


def test_what_is_recorded_has_no_name_that_a_killed_process_could_leave(own, tmp_path, monkeypatch):
    own.start()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with own.trace() as lens:
        own.run("true")
        assert lens.crossings(layers=["vsock"])
        assert list(tmp_path.iterdir()) == []
    own.stop()
    own.start()
    monkeypatch.setattr(tempfile, "tempdir", "/proc/self")
    with pytest.raises(FailedPrecondition, match="cannot be kept in /proc/self"):
        own.trace()


def test_it_survives_its_machine_and_is_saved(own, tmp_path):
    own.start()
    lens = own.trace()
    own.run("true")
    assert repr(lens) == "<Lens records calls, orders and packets>"
    own.stop()
    assert lens.closed
    assert repr(lens) == "<Lens has calls, orders and packets>"
    lens.save(tmp_path / "all.jsonl")
    lens.save(tmp_path / "few.jsonl", layers=["qmp"])
    layers = [json.loads(line)["layer"] for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert {"ttrpc", "vsock"} <= set(layers)
    lens.save(tmp_path / "packets.pcapng")
    if shutil.which("tshark"):
        done = subprocess.run(
            ["tshark", "-r", tmp_path / "packets.pcapng"], capture_output=True, text=True, check=True
        )
        assert len(done.stdout.splitlines()) == layers.count("vsock")
    with pytest.raises(InvalidArgument, match="pcapng"):
        lens.save(tmp_path / "other.txt")
    with pytest.raises(InvalidArgument, match="whole"):
        lens.save(tmp_path / "part.pcapng", last=3)


async def test_one_at_a_time_and_nothing_is_tapped_without():
    async with AsyncSandbox() as sandbox:
        with pytest.raises(FailedPrecondition, match="new"):
            await sandbox.trace()
        await sandbox.start()
        lens = await sandbox.trace()
        with pytest.raises(FailedPrecondition, match="traced already"):
            await sandbox.trace()
        await lens.close()
        await lens.close()
        assert sandbox._life.running.client._channel._connection.tap is None
        assert sandbox._life.running.machine._monitor._qmp.tap is None
        async with await sandbox.trace() as again:
            await sandbox.run("true")
        assert again.crossings(match="Process.Start")
        assert not lens.crossings(match="Process.Start")


def test_statistics_of_guest_and_connections(sb):
    before = sb.stats(processes=True)
    others = {connection.host_port for connection in sb.connections()}
    with sb.popen("exec sleep 987 && echo never") as process:
        sb.run("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done")
        after = sb.stats(processes=True)
        (listed,) = [one for one in after.processes if one.pid == process.pid]
        control, *streams = sorted(sb.connections(), key=lambda connection: connection.host_port)
        streams = [stream for stream in streams if stream.host_port not in others]
    assert listed.command == "sleep 987"
    found = rates(before, after)
    assert 0 < found.cpu <= 1
    assert set(found.processes) == {one.pid for one in after.processes}
    assert before.memory_total // 2**20 in range(150, sb.options.memory_mib)
    assert control.host_port == 1025
    assert [stream.guest_port for stream in streams] == [1026] * 3
    assert all(0 < connection.host_may_send <= 1 << 20 for connection in (control, *streams))


def test_forwards_are_told(own):
    own.start()
    assert own.asynchronous.forwards == []
    with own.forward(0, 80) as forward:
        assert [(one.port, one.target) for one in own.asynchronous.forwards] == [(forward.port, 80)]
    assert own.asynchronous.forwards == []
