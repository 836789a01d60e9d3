"""Restored machines: as good as booted ones, no twins, and never from the wrong template."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from sandbox_nb import Sandbox, launch
from sandbox_nb.vm import template


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A template cache of the test's own, empty."""
    monkeypatch.setattr(launch, "templates_dir", lambda: tmp_path)
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
        "cat /etc/machine-id",
        "hostname",
    )
    with Sandbox.started(name="zero"), Sandbox.started(name="one") as one, Sandbox.started(name="two") as two:
        assert (one.boot.kind, two.boot.kind) == ("warm", "warm")
        for question in questions:
            assert one.run(question, check=True).stdout != two.run(question, check=True).stdout, question


def test_a_clone_has_the_hosts_clock(cache):
    with Sandbox.started() as first:
        first.run("true")
    time.sleep(2)
    with Sandbox.started() as clone:
        assert clone.boot.kind == "warm"
        before = time.time()
        told = float(clone.run("cut -d. -f1 /proc/uptime; date +%s").stdout.split()[1])
        assert before - 1.5 <= told <= time.time() + 1.5


def test_another_machine_is_another_template(cache):
    with Sandbox.started():
        pass
    with Sandbox.started(cpu=1, memory=300) as other:
        assert other.boot.kind == "cold"
    assert len(templates(cache)) == 2


async def test_any_difference_is_another_key(cache, monkeypatch):
    plan = await launch._plan(launch.Options().applying([], {"accel": "tcg"}), None)
    spec = plan.spec
    others = [
        replace(plan, spec=replace(spec, memory=512)),
        replace(plan, spec=replace(spec, cpu=2)),
        replace(plan, spec=replace(spec, accel="kvm")),
        replace(plan, spec=replace(spec, qemu=cache / "qemu")),
        replace(plan, image=replace(plan.image, digest="another")),
    ]
    (cache / "qemu").touch()
    keys = {template.key(found.identity()) for found in [plan, *others]}
    monkeypatch.setattr(launch, "__version__", "99")
    keys.add(template.key(plan.identity()))
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
    monkeypatch.setattr(launch, "templates_dir", lambda: cache / "file" / "below")
    (cache / "file").touch()
    with Sandbox.started() as sandbox:
        assert sandbox.run("echo up").stdout == "up\n"


def test_eight_at_once(cache):
    from concurrent.futures import ThreadPoolExecutor

    with Sandbox.started():
        pass

    def one(number):
        with Sandbox.started(name=f"n{number}") as sandbox:
            return sandbox.boot.kind, sandbox.run("hostname").stdout.strip()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(8))) == [("warm", f"n{number}") for number in range(8)]
