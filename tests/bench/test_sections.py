"""The sections in real machines, with few rounds: every row is there, and is what it says."""

from __future__ import annotations

import sys

import pytest

from sandbox_nb.bench import Skipped, files, machine, ttrpc, vsock, vsock_peer

pytestmark = pytest.mark.vm


def test_the_times_of_a_life_follow_one_another():
    life = machine.live(warm=True)
    assert 0 < life.ready < life.executed < life.stopped


def test_all_of_a_machine_is_measured(shrink):
    shrink(machine, IMPORTS=1, ROUNDS=1, WARM_ROUNDS=1, STANDBY_ROUNDS=1, TOGETHER=2, CALLS=1, BARE_EXECS=1)
    rows = machine.rows()
    assert tuple(rows) == machine.NAMES
    assert all(row.median > 0 and row.n == 1 for name, row in rows.items() if not name.startswith("import"))


def test_all_that_copies_take_turns(shrink):
    shrink(files, FILES=3, ROUNDS=1)
    rows = files.rows()
    expected = {name for name in files.NAMES if "virtiofs" not in name}  # which is not everywhere
    assert expected <= set(rows) <= set(files.NAMES)
    assert all(row.median > 0 and row.n == 1 for row in rows.values())


def test_our_calls_and_grpcios_take_turns(shrink):
    shrink(ttrpc, ROUNDS=2, CALLS=10, MESSAGES=2)
    rows = ttrpc.rows()
    assert set(rows) == set(ttrpc.NAMES)
    assert all(row.median > 0 and row.n == 2 for row in rows.values())


def test_calls_are_held_against_nothing_where_grpcio_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc.aio", None)
    with pytest.raises(Skipped, match="pip install grpcio"):
        ttrpc.rows()


def test_all_that_carries_bytes_takes_turns(shrink):
    shrink(vsock, MIB=1 << 14, BLOCKS=(1 << 16,), ROUNDS=2, PINGS=5, CONNECTIONS=3, SPAWNS=2, IDLE_SECONDS=0.1)
    rows = vsock.rows()
    assert set(rows) == set(vsock.NAMES)
    assert all(row.median > 0 for name, row in rows.items() if name != "vsock_device_idle_percent")
    assert rows["vsock_rtt_us"].n == 2


def test_bytes_are_not_measured_outside_of_the_repository(monkeypatch, tmp_path):
    monkeypatch.setattr(vsock_peer, "SOURCES", tmp_path)
    with pytest.raises(Skipped, match=f"source is not in {tmp_path}: run this from the repository"):
        vsock.rows()
