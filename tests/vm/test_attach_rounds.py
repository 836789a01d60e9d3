"""Devices that come and go on one machine, over and over: nothing is used up."""

from __future__ import annotations

import os
import subprocess

import pytest
from support import descendants

from sandbox_nb.devices import Disk, Filesystem, UserNIC

pytestmark = pytest.mark.vm


def disk(machine, tmp_path):
    machine.attach(Disk("x", tmp_path / "image"))
    machine.sh(f"echo round > {machine.disk('x')} && sync")


def share(machine, tmp_path, readonly=False):
    machine.mount(machine.attach(Filesystem("x", tmp_path / "shared", readonly)))
    assert machine.sh("cat /mnt/file && umount /mnt") == "shared"


def readonly_share(machine, tmp_path):
    share(machine, tmp_path, readonly=True)


def card(machine, tmp_path):
    name = machine.interface(machine.attach(UserNIC(name="x")).backend.mac)
    machine.sh(f"ip addr add 10.0.2.15/24 dev {name}; ip link set {name} up; ping -c 1 -W 5 10.0.2.2")


KINDS = (disk, share, readonly_share, card)


def held(machine):
    """What a leak would add to: descriptors, processes and files of the host, and what QEMU has names for."""
    (qemu,) = descendants(machine.machine.child.pid)
    asked = ("query-named-block-nodes", "query-chardev", "query-pci", "query-block", "query-fdsets")
    answers = [machine.wait(machine.machine.execute(verb)) for verb in asked]
    return {
        "descriptors of QEMU": len(os.listdir(f"/proc/{qemu}/fd")),
        "our descriptors": len(os.listdir("/proc/self/fd")),
        "processes": len(descendants(os.getpid())),
        "files": sorted(os.listdir(machine.folder)) + sorted(os.listdir(machine.folder / "9p")),
        "names in QEMU": [len(answer) for answer in answers],
        "free ports": len(machine.machine._ports._free),
        "guest": machine.sh("ls /sys/class/block /sys/class/net /sys/bus/virtio/devices | wc -l"),
    }


@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.soak)])
@pytest.mark.timeout(900)
def test_rounds_of_coming_and_going_use_nothing_up(machine, tmp_path, rounds):
    """Each round is four: a disk, two shares, a network card."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "image", "8M"], check=True)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "file").write_text("shared")
    before = {}
    for index in range(rounds + 1):
        for kind in KINDS:
            kind(machine, tmp_path)
            machine.detach("x")
        if index == 0:  # what is made once is made by now
            before = held(machine)
    assert held(machine) == before
