"""QEMU's command line: what it must say, and what it must not depend on."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox_nb.errors import InvalidArgument
from sandbox_nb.vm import architecture, command
from sandbox_nb.vm.architecture import AARCH64, X86_64
from sandbox_nb.vm.command import Fds, Spec

SPEC = Spec(X86_64, Path("/usr/bin/qemu-system-x86_64"), "tcg", 1, 256, Path("/i/vmlinux"), Path("/i/initrd"))
FDS = Fds(ram=7, qmp=8, console=9, kernel=10, initrd=11)


def values(argv: list[str], flag: str) -> list[str]:
    return [argv[index + 1] for index, word in enumerate(argv) if word == flag]


@pytest.mark.parametrize("cpu", [1, 2, 255])
def test_processors_and_memory_are_as_asked(cpu):
    argv = command.argv(replace(SPEC, cpu=cpu, memory=4096), FDS)
    assert values(argv, "-smp") == [str(cpu)]
    assert values(argv, "-m") == ["4096M"]
    assert "size=4096M" in " ".join(values(argv, "-object"))


def test_ram_is_the_inherited_descriptor_and_shared_with_the_device():
    (ram,) = values(command.argv(SPEC, FDS), "-object")
    assert "mem-path=/proc/self/fd/7" in ram
    assert "share=on" in ram


def test_nothing_is_there_that_was_not_asked_for():
    argv = command.argv(SPEC, FDS)
    assert {"-nodefaults", "-no-user-config", "-no-reboot", "-S"} <= set(argv)
    assert not {"-nic", "-net", "-netdev", "-drive", "-hda"} & set(argv)


def test_folders_can_be_shared_later_through_links_in_an_inherited_folder():
    assert values(command.argv(SPEC, FDS), "-fsdev") == []
    slots = values(command.argv(SPEC, replace(FDS, slots=12)), "-fsdev")
    assert len(slots) == 8
    for slot in slots:
        name = slot.partition("id=")[2].partition(",")[0]
        assert f"path=/proc/self/fd/12/{name}," in slot
        assert "security_model=none" in slot
        assert ("readonly=on" in slot) == name.startswith("ro")


@pytest.mark.parametrize(("accel", "cpu", "alone"), [("tcg", 2, True), ("tcg", 1, False), ("kvm", 2, False)])
@pytest.mark.parametrize("arch", [X86_64, AARCH64])
def test_of_several_emulated_processors_one_boots(arch, accel, cpu, alone):
    kernel, _, _ = command.kernel_command_line(replace(SPEC, arch=arch, accel=accel, cpu=cpu)).partition(" -- ")
    assert ("maxcpus=1" in kernel.split()) is alone


def test_the_sandbox_of_qemu_is_on():
    (sandbox,) = values(command.argv(SPEC, FDS), "-sandbox")
    assert sandbox == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@pytest.mark.parametrize(
    ("accel", "model", "flag"), [("kvm", "host", "kvm"), ("tcg", "max", "tcg,thread=multi,tb-size=256")]
)
def test_each_accelerator_has_its_processor(accel, model, flag):
    argv = command.argv(replace(SPEC, accel=accel), FDS)
    assert values(argv, "-accel") == [flag]
    assert values(argv, "-cpu")[0].split(",")[0] == model


def test_the_agents_flags_stand_behind_the_kernels():
    kernel, _, agent = command.kernel_command_line(replace(SPEC, accel="kvm")).partition(" -- ")
    assert "console=ttyS0" in kernel
    assert "panic=-1" in kernel
    assert agent.split() == ["-vsock-rpc-port=1025", "-vsock-stream-port=1026", "-vsock-cid=3"]


def test_the_agent_is_told_that_its_processor_is_emulated():
    assert "-emulated" in command.kernel_command_line(replace(SPEC, accel="tcg")).split()
    assert "-emulated" not in command.kernel_command_line(replace(SPEC, accel="kvm")).split()


def test_only_descriptor_numbers_differ_between_two_machines_of_a_kind():
    first, second = command.argv(SPEC, FDS), command.argv(SPEC, Fds(17, 18, 19, 20, 21))
    assert [a for a, b in zip(first, second, strict=True) if a != b] == [
        "memory-backend-file,id=ram,size=256M,mem-path=/proc/self/fd/7,share=on",
        "socket,id=qmp,fd=8",
        "socket,id=console,fd=9",
        "/proc/self/fd/10",
        "/proc/self/fd/11",
    ]


@pytest.mark.parametrize("arch", [X86_64, AARCH64], ids=lambda arch: arch.name)
@pytest.mark.parametrize("cpu", [1, 4, 255])
def test_qemu_accepts_the_machine(cpu, arch, tmp_path):
    """QEMU itself parses the line and builds the machine; only what needs a guest is left out."""
    qemu = shutil.which(arch.qemu)
    if qemu is None:
        pytest.skip(f"{arch.qemu} is not installed")
    argv = command.argv(replace(SPEC, arch=arch, qemu=Path(qemu), cpu=cpu), FDS)
    kept = []
    for flag, value in zip(argv[1:], [*argv[2:], ""], strict=True):
        if flag in ("-accel", "-machine", "-cpu", "-smp", "-m", "-device"):
            kept += [flag, value.replace(",memory-backend=ram", "")]
    ram = ["-nodefaults", "-display", "none", "-S", "-monitor", "stdio"]
    done = subprocess.run([argv[0], *kept, *ram], input="quit\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("arch", "console"), [(X86_64, "ttyS0"), (AARCH64, "ttyAMA0")])
def test_the_kernel_is_told_of_the_console_its_machine_has(arch, console):
    assert command.kernel_command_line(replace(SPEC, arch=arch)).startswith(f"console={console} ")


def test_only_a_machine_with_acpi_has_a_generation_id():
    assert "vmgenid,guid=auto" in values(command.argv(SPEC, FDS), "-device")
    assert "vmgenid" not in " ".join(command.argv(replace(SPEC, arch=AARCH64), FDS))


def test_an_unknown_architecture_is_refused_with_those_there_are():
    with pytest.raises(InvalidArgument, match="arch='sparc': machines are of x86_64 or aarch64"):
        architecture.named("sparc")
