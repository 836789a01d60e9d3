"""The ``python`` image: Python with its standard library on a read-only disk, writable on top."""

from __future__ import annotations

import json

import pytest

from sandbox_nb import Sandbox


@pytest.fixture(scope="module")
def py():
    with Sandbox.started(image="python", name="py") as sandbox:
        yield sandbox


def test_python_and_its_standard_library_are_there(py):
    script = "import json, sqlite3, ssl, sys, zlib; print(json.dumps(sys.version_info[:2]))"
    assert json.loads(py.run(["python3", "-c", script], check=True).stdout) >= [3, 11]


def test_it_feels_like_a_linux(py):
    for command in ("sh -c true", "ls /", "ps", "cat /etc/os-release", "id user"):
        assert py.run(command).returncode == 0, command


def test_the_root_is_written_on_top_and_forgotten(py):
    py.write("/usr/lib/mark", "x")
    assert py.run("cat /usr/lib/mark").stdout == "x"
    with Sandbox.started(image="python") as other:
        assert other.run("ls /usr/lib/mark").returncode != 0


def test_a_process_runs_as_another_user(py):
    assert py.run("id -un; cd; pwd", user="user").stdout.split() == ["user", "/home/user"]
