"""Binder's files, one by one; `make binder-check` does with all of them as Binder does."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

BINDER = Path(__file__).parents[1] / "binder"
RAM = 4 << 20


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_what_is_run_can_be_run(name):
    assert os.access(BINDER / name, os.X_OK)
    subprocess.run(["bash", "-n", BINDER / name], check=True)


def test_the_list_of_packages_is_names_and_nothing_else():
    """repo2docker takes no options, versions or architectures."""
    names = (BINDER / "apt.txt").read_text().split("\n")
    assert names.pop() == ""
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name) for name in names)
    assert "qemu-system-x86" in names


@pytest.fixture
def repository(tmp_path) -> Path:
    """Where repo2docker has put the project, and a saved machine whose RAM a container's layers have filled up."""
    (tmp_path / "binder").symlink_to(BINDER)
    ram = tmp_path / ".cache/sandbox_nb/templates/key/ram"
    ram.parent.mkdir(parents=True)
    ram.write_bytes(b"used" + bytes(RAM))
    return tmp_path


def start(repository: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "REPO_DIR": str(repository)}
    return subprocess.run(
        [BINDER / "start", *command], env=environment, capture_output=True, text=True, check=False
    )


def test_a_session_finds_what_was_built_wherever_its_home_is(repository):
    done = start(repository, "sh", "-c", "echo $XDG_CACHE_HOME; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{repository}/.cache\n", "")


def test_zeros_of_a_saved_machine_are_holes_again(repository):
    ram = repository / ".cache/sandbox_nb/templates/key/ram"
    assert ram.stat().st_blocks * 512 >= RAM
    assert start(repository, "true").returncode == 0
    assert ram.stat().st_blocks * 512 <= 64 << 10
    assert ram.read_bytes() == b"used" + bytes(RAM)
