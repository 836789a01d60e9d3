"""A report holds what helps, and nothing secret."""

from __future__ import annotations

import json
import os
import signal
import stat
import zipfile

import pytest
from support import descendants

from sandbox_nb import InvalidArgument, Sandbox, Unavailable

pytestmark = pytest.mark.vm

SECRET = "correct-horse-battery-staple"


def test_it_holds_logs_options_boot_and_findings_and_no_secret(tmp_path):
    with Sandbox.started(name="asked", init_args=[f"-token={SECRET}"], cpu=1, memory=256) as sandbox:
        sandbox.run("true", env={"TOKEN": SECRET}, input=SECRET)
        sandbox.write("/root/token", SECRET)
        sandbox.run("cat /root/token; cat", input=SECRET)
        sandbox.run("echo on the console > /dev/console")
        path = sandbox.report(tmp_path / "report.zip")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    assert b"on the console" in content["console.log"] + content["console.txt"]
    assert b"memory = 256" in content["options.toml"]
    assert b"init_args: 1 left out" in content["options.toml"]
    about = json.loads(content["about.json"])
    assert (about["name"], about["state"]) == ("asked", "running")
    assert about["boot"]["phases"]
    assert "QEMU" in {finding["subject"] for finding in json.loads(content["doctor.json"])}
    assert not [name for name, data in content.items() if SECRET.encode() in data]


def test_a_machine_that_failed_or_never_was_has_one_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Sandbox("odd") as sandbox:
        sandbox.report("before.zip")
        sandbox.start()
        (qemu,) = descendants(sandbox.asynchronous._life.running.machine.child.pid)
        os.kill(qemu, signal.SIGKILL)
        with pytest.raises(Unavailable):
            sandbox.run("true")
        path = sandbox.report()
    assert path.name.startswith("sandbox-odd-")
    with zipfile.ZipFile(path) as archive:
        assert "signal 9 ended QEMU" in json.loads(archive.read("about.json"))["failure"]


def test_what_is_there_is_not_replaced(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InvalidArgument, match="there already"):
        Sandbox().report(tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"
