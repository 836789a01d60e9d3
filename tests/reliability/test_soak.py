"""Harm done at random: for some seconds here, for twenty minutes with ``make soak``. SOAK_SEED says which harm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.vm


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seconds", [10, pytest.param(1200, marks=pytest.mark.soak)])
def test_nothing_hangs_is_lost_or_left(seconds):
    harm = [sys.executable, Path(__file__).with_name("soak.py"), "--seconds", str(seconds)]
    done = subprocess.run([*harm, "--seed", os.environ.get("SOAK_SEED", "1")], capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
