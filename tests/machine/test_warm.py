"""Restored machines: as good as booted ones, no twins, and never from the wrong template."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from support import alive, descendants

from sandbox_nb import AsyncSandbox, Sandbox, bringup, cli, host, plan, rundir
from sandbox_nb.vm import template


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A template cache of the test's own, empty."""
    monkeypatch.setattr(host, "templates_dir", lambda: tmp_path)
    return tmp_path


def templates(cache):
    return [found.folder for found in template.list_templates(cache)]


def test_the_first_start_makes_the_template_and_the_next_restores_it(cache):
    with Sandbox.started() as first:
        assert first.boot.kind == "cold"
        assert first.run("echo first").stdout == "first\n"
        assert len(templates(cache)) == 1
        with Sandbox.started() as second:
            assert second.boot.kind == "warm"
            assert set(second.boot.phases) == {"prepare", "restore", "dial", "configure"}
            assert second.run("echo second").stdout == "second\n"
            second.write("/tmp/mark", "2")
        assert first.run("ls /tmp/mark").returncode != 0
    assert len(templates(cache)) == 1


def test_warm_off_boots_and_makes_nothing(cache):
    with Sandbox.started(warm=False) as sandbox:
        assert sandbox.boot.kind == "cold"
        assert sandbox.run("true").returncode == 0
    assert templates(cache) == []


def test_clones_are_no_twins(cache):
    questions = (
        "head -c 16 /dev/urandom | od -x",
        "cat /proc/sys/kernel/random/uuid",
        "uuidgen || cat /proc/sys/kernel/random/uuid",
        "cat /proc/sys/kernel/random/boot_id",  # made when it is first read, which no template does
        "cat /proc/self/maps",
        "cat /etc/machine-id",
        "hostname",
    )
    with Sandbox.started(name="zero"), Sandbox.started(name="one") as one, Sandbox.started(name="two") as two:
        assert (one.boot.kind, two.boot.kind) == ("warm", "warm")
        for question in questions:
            assert one.run(question, check=True).stdout != two.run(question, check=True).stdout, question


def test_a_clones_kernel_reseeds_before_we_tell_it_anything(cache):
    with Sandbox.started() as first:
        assert "virtual machine fork" not in first.run("dmesg").stdout
    with Sandbox.started() as clone:
        assert "crng reseeded due to virtual machine fork" in clone.run("dmesg").stdout


def clock_errors(sandbox):
    """By how much the guest's clock is ahead, at least and at most, in seconds."""
    lowest, highest = -math.inf, math.inf
    for _ in range(5):
        before = time.time()
        words = sandbox.run("adjtimex | grep tv_", check=True).stdout.split()
        after = time.time()
        told = int(words[1]) + int(words[3]) / 1e6
        lowest, highest = max(lowest, told - after), min(highest, told - before)
    return lowest, highest


def test_a_clone_of_a_template_from_yesterday_has_the_right_clock(cache, monkeypatch):
    """The template's guest was told that it is yesterday; three clones tell the host's time, to 50 ms."""
    argv = plan.command.argv
    yesterday = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - 86400))
    monkeypatch.setattr(
        plan.command, "argv", lambda *spec, **how: [*argv(*spec, **how), "-rtc", f"base={yesterday}"]
    )
    with Sandbox.started():
        pass
    for _ in range(3):
        with Sandbox.started() as clone:
            assert clone.boot.kind == "warm"
            assert clone.run("dmesg | grep -c 'setting system clock to " + yesterday[:10] + "'").stdout == "1\n"
            lowest, highest = clock_errors(clone)
            assert lowest <= 0.05
            assert highest >= -0.05


def test_another_machine_is_another_template(cache):
    with Sandbox.started():
        pass
    with Sandbox.started(cpu=1, memory=300) as other:
        assert other.boot.kind == "cold"
    assert len(templates(cache)) == 2


async def test_any_difference_is_another_key(cache, monkeypatch):
    made = await plan.make(plan.Options().applying([], {"accel": "tcg"}), None)
    spec = made.spec
    others = [
        replace(made, spec=replace(spec, memory=512)),
        replace(made, spec=replace(spec, cpu=2)),
        replace(made, spec=replace(spec, accel="kvm")),
        replace(made, spec=replace(spec, qemu=cache / "qemu")),
        replace(made, image=replace(made.image, digest="another")),
    ]
    (cache / "qemu").touch()
    keys = {template.key(found.identity()) for found in [made, *others]}
    monkeypatch.setattr(plan, "__version__", "99")
    keys.add(template.key(made.identity()))
    assert len(keys) == len(others) + 2


def test_a_template_torn_in_its_state_is_made_anew(cache):
    with Sandbox.started():
        pass
    (folder,) = templates(cache)
    (folder / template.STATE).write_bytes(os.urandom(1000))
    with Sandbox.started() as sandbox:
        assert sandbox.boot.kind == "cold"
        assert sandbox.run("echo up").stdout == "up\n"
    assert len(templates(cache)) == 1


def test_a_ram_that_was_lost_ends_in_a_cold_start(cache, monkeypatch):
    """Size and mark are right, and the machine in it never calls."""
    monkeypatch.setattr(bringup, "RESTORED_TIMEOUT", 2.0)
    with Sandbox.started():
        pass
    (folder,) = templates(cache)
    with (folder / template.RAM).open("r+b") as ram:
        ram.write(bytes(32 << 20))
    with Sandbox.started() as sandbox:
        assert sandbox.boot.kind == "cold"
        assert "did not come to life" in sandbox.boot.note
        assert sandbox.run("echo up").stdout == "up\n"
    with Sandbox.started() as sandbox:
        assert sandbox.boot.kind == "warm"


def test_a_template_removed_while_it_is_restored_ends_in_a_cold_start(cache, monkeypatch):
    with Sandbox.started():
        pass
    find = template.find

    def find_and_lose(*arguments):
        found = find(*arguments)
        template.remove(found)
        return found

    monkeypatch.setattr(template, "find", find_and_lose)
    with Sandbox.started() as sandbox:
        assert sandbox.boot.kind == "cold"
        assert sandbox.run("echo up").stdout == "up\n"


def test_a_disk_too_full_for_a_template_is_no_obstacle(cache, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(template, "write_ram", full)
    with Sandbox.started() as sandbox:
        assert sandbox.run("echo up").stdout == "up\n"
    assert list(cache.iterdir()) == []


async def test_a_start_cancelled_while_the_template_is_saved_leaves_nothing(cache, monkeypatch):
    write_ram, saving = template.write_ram, threading.Event()

    def write_slowly(*arguments):
        saving.set()
        time.sleep(0.3)
        return write_ram(*arguments)

    monkeypatch.setattr(template, "write_ram", write_slowly)
    start = asyncio.create_task(AsyncSandbox().start())
    await asyncio.to_thread(saving.wait)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert list(cache.iterdir()) == []


def test_two_that_build_at_once_both_get_their_machine(cache):
    def one(number):
        with Sandbox.started(name=f"n{number}") as sandbox:
            return sandbox.run("hostname").stdout

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(one, range(2))) == ["n0\n", "n1\n"]
    assert len(list(cache.iterdir())) == 1


START = """
import sys
from pathlib import Path
from sandbox_nb import Sandbox, host
host.templates_dir = lambda: Path(sys.argv[1])
print("go", flush=True)
with Sandbox.started() as sandbox:
    sandbox.run("true")
"""


def start_and_kill(cache, after):
    """Kill -9 a Python ``after`` seconds into a start, and wait for all below it to be gone."""
    process = subprocess.Popen([sys.executable, "-c", START, str(cache)], stdout=subprocess.PIPE)
    with process, process.stdout:
        process.stdout.readline()
        time.sleep(after)
        below = descendants(process.pid)
        process.kill()
        process.wait()
    deadline = time.monotonic() + 5
    while alive(below) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(below)


@pytest.mark.parametrize("rounds", [5, pytest.param(40, marks=pytest.mark.soak)])
def test_kill_9_at_any_point_leaves_nothing_and_the_next_start_works(cache, rounds):
    with Sandbox.started() as first:
        boot, (saved,) = first.boot.seconds, templates(cache)
    with Sandbox.started() as second:
        restore = second.boot.seconds
    for index in range(rounds):
        shutil.rmtree(saved, ignore_errors=True)
        start_and_kill(cache, boot * (index + 0.5) / rounds)
    with Sandbox.started() as sandbox:
        assert sandbox.run("echo up").stdout == "up\n"
    for index in range(rounds):
        start_and_kill(cache, restore * (index + 0.5) / rounds)
    with Sandbox.started() as sandbox:
        assert sandbox.boot.kind == "warm"
        assert sandbox.run("echo up").stdout == "up\n"
    assert list(cache.iterdir()) == [saved]
    assert rundir.leftovers(rundir.base()) == []


def test_a_state_qemu_does_not_take_ends_in_a_cold_start(cache):
    """The record fits the file, and yet QEMU refuses what is in it."""
    with Sandbox.started():
        pass
    (folder,) = templates(cache)
    whole = template.find(cache, folder.name)
    (folder / template.STATE).write_bytes(b"QEVM" + os.urandom(1000))
    with (folder / template.RAM).open("rb") as ram:
        ram.seek(whole.size)
        mark = ram.read().hex()
    template.write_record(folder, whole.size, mark, {})
    with Sandbox.started() as sandbox:
        assert sandbox.boot.kind == "cold"
        assert sandbox.run("echo up").stdout == "up\n"
    with Sandbox.started() as sandbox:
        assert sandbox.boot.kind == "warm"


def test_a_cache_that_cannot_be_written_is_no_obstacle(cache, monkeypatch):
    monkeypatch.setattr(host, "templates_dir", lambda: cache / "file" / "below")
    (cache / "file").touch()
    with Sandbox.started() as sandbox:
        assert sandbox.run("echo up").stdout == "up\n"


def test_eight_at_once(cache):
    with Sandbox.started():
        pass

    def one(number):
        with Sandbox.started(name=f"n{number}") as sandbox:
            return sandbox.boot.kind, sandbox.run("hostname").stdout.strip()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(8))) == [("warm", f"n{number}") for number in range(8)]
    assert len(list(cache.iterdir())) == 1


def test_templates_from_the_command_line(cache, capsys):
    assert cli.main(["template", "list"]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["template", "build", "--cpu", "1", "--memory", "300"]) == 0
    key = capsys.readouterr().out.strip()
    assert cli.main(["template", "build", "--cpu", "1", "--memory", "300"]) == 0
    assert capsys.readouterr().out.strip() == key
    assert cli.main(["template", "list"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(key)
    assert "memory=300" in line
    assert cli.main(["template", "rm", "nothing-like-it"]) == 125
    assert "template list" in capsys.readouterr().err
    assert cli.main(["template", "rm", key[:8]]) == 0
    assert capsys.readouterr().out.strip() == key
    assert list(cache.iterdir()) == []
    assert cli.main(["template", "rm", "all"]) == 0
    assert cli.main(["template", "build", "--warm", "off"]) == 2


def test_a_template_that_cannot_be_saved_is_told_by_the_command_line(cache, monkeypatch, capsys):
    monkeypatch.setattr(host, "templates_dir", lambda: cache / "file" / "below")
    (cache / "file").touch()
    assert cli.main(["template", "build"]) == 125
    assert "no template was saved" in capsys.readouterr().err
