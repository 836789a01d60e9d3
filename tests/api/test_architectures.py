"""Which architecture a guest has, and what follows from it on this host."""

from __future__ import annotations

import platform

import pytest

from sandbox_nb import host
from sandbox_nb.errors import InvalidArgument, NotFound
from sandbox_nb.options import Options
from sandbox_nb.vm.architecture import AARCH64, X86_64


@pytest.mark.parametrize(("machine", "arch"), [("x86_64", X86_64), ("aarch64", AARCH64)])
def test_a_guest_is_like_its_host_unless_told_otherwise(monkeypatch, machine, arch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert host.guest_architecture(Options()) is arch
    assert host.guest_architecture(Options(arch="aarch64")) is AARCH64
    assert host.guest_architecture(Options(arch="x86_64")) is X86_64


def test_a_host_of_which_there_are_no_guests_is_named_with_those_there_are(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(InvalidArgument, match="arch='riscv64': machines are of x86_64 or aarch64"):
        host.guest_architecture(Options())


def test_an_unknown_architecture_is_no_option():
    with pytest.raises(InvalidArgument, match="arch='sparc': choose host or x86_64 or aarch64"):
        Options().applying([], {"arch": "sparc"})


@pytest.mark.parametrize("arch", [X86_64, AARCH64], ids=lambda arch: arch.name)
def test_a_missing_qemu_is_named_with_its_package(monkeypatch, arch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotFound, match=f"{arch.qemu} is not installed: sudo apt-get install {arch.package} "):
        host.find_qemu(arch)
