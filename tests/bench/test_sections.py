"""The sections in real machines, with few rounds: every row is there, and is what it says."""

from __future__ import annotations

import pytest

from sandbox_nb.bench import files, machine

pytestmark = pytest.mark.vm


def test_the_times_of_a_life_follow_one_another():
    life = machine.live(warm=True)
    assert 0 < life.ready < life.executed < life.stopped


@pytest.mark.soak
def test_all_of_a_machine_is_measured(monkeypatch):
    for rounds in ("IMPORTS", "COLD_ROUNDS", "WARM_ROUNDS", "STANDBY_ROUNDS", "CALLS"):
        monkeypatch.setattr(machine, rounds, 1)
    assert tuple(machine.rows()) == machine.NAMES


def test_all_that_copies_take_turns(monkeypatch):
    monkeypatch.setattr(files, "FILES", 3)
    monkeypatch.setattr(files, "ROUNDS", 1)
    rows = files.rows()
    expected = {name for name in files.NAMES if "virtiofs" not in name}  # which is not everywhere
    assert expected <= set(rows) <= set(files.NAMES)
    assert all(row.median > 0 and row.n == 1 for row in rows.values())
