"""QEMU's command line, as a pure function of what was asked for.

Everything that may arrive later arrives by QMP on one of the root ports, so two machines with the same
processors, memory and image have the same command line but for the numbers of inherited file descriptors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sandbox_nb.vm import slots
from sandbox_nb.vm.architecture import Architecture

ROOT_PORTS = 16
"""PCIe root ports, each a place for one device. They must be there from boot; 30 cost 0.35 s more of it."""

CODE_BUFFER = 256
"""MiB that code translated for the guest may take; QEMU would take 1024. What does not fit is translated again."""

RPC_PORT = 1025
STREAM_PORT = 1026
GUEST_CID = 3


def rpc_port(cid: int) -> int:
    """The host's port that an agent with the context id ``cid`` calls.

    Guests of the kernel's vhost-vsock share the host's ports, and each has a context id of its own.
    """
    return RPC_PORT if cid == GUEST_CID else cid


WAITING = b"waiting for the host"
"""What the agent says on the console when it is up and there is no device to call through yet."""


@dataclass(frozen=True)
class Spec:
    """What a machine is made of. ``memory`` in MiB; ``preload``: every module is loaded before the agent waits."""

    arch: Architecture
    qemu: Path
    accel: str
    cpu: int
    memory: int
    kernel: Path
    initrd: Path
    preload: bool = False


@dataclass(frozen=True)
class Fds:
    """Numbers of the descriptors QEMU inherits: the guest's RAM, sockets for QMP and console, the files to boot.

    ``slots`` is the folder of the links to shared folders; None for a machine without any.
    """

    ram: int
    qmp: int
    console: int
    kernel: int
    initrd: int
    slots: int | None = None


def kernel_command_line(spec: Spec) -> str:
    """What the guest's kernel is told; behind ``--`` stand the agent's own flags."""
    agent = [f"-vsock-rpc-port={RPC_PORT}", f"-vsock-stream-port={STREAM_PORT}", f"-vsock-cid={GUEST_CID}"]
    agent += ["-preload"] if spec.preload else []
    agent += ["-emulated"] if spec.accel == "tcg" else []
    kernel = [spec.arch.kernel_parameters]
    # The kernel patches its code as it boots; an emulated processor that is just there may run the old for ever.
    kernel += [spec.arch.one_at_boot] if spec.accel == "tcg" and spec.cpu > 1 else []
    return " ".join([*kernel, "--", *agent])


def argv(spec: Spec, fds: Fds, *, incoming: bool = False) -> list[str]:
    """QEMU's command line for a machine that waits, paused, for its devices and for ``cont``.

    With ``incoming`` it waits for the state of a saved machine first.
    """
    return [
        str(spec.qemu),
        *("-name", "sandbox_nb,debug-threads=on"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-S"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *_processor(spec),
        *("-m", f"{spec.memory}M"),
        *(
            "-object",
            f"memory-backend-file,id=ram,size={spec.memory}M,mem-path=/proc/self/fd/{fds.ram},share=on",
        ),
        *("-chardev", f"socket,id=qmp,fd={fds.qmp}", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=console,fd={fds.console}", "-serial", "chardev:console"),
        *_root_ports(),
        *_devices(spec.arch.devices),
        *_share_slots(fds.slots),
        *("-kernel", f"/proc/self/fd/{fds.kernel}", "-initrd", f"/proc/self/fd/{fds.initrd}"),
        *("-append", kernel_command_line(spec)),
        *(["-incoming", "defer"] if incoming else []),
    ]


def probe_argv(arch: Architecture, qemu: Path, accel: str, probe: Path) -> list[str]:
    """QEMU's command line that runs the probe, which writes to the standard output and ends QEMU."""
    return [
        str(qemu),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-m", "32M"),
        *("-machine", f"{arch.machine},accel={accel}", "-cpu", arch.cpu[accel], "-serial", "stdio"),
        *_devices(arch.probe_devices),
        *("-kernel", str(probe)),
    ]


def _processor(spec: Spec) -> list[str]:
    accel = f"tcg,thread=multi,tb-size={CODE_BUFFER}" if spec.accel == "tcg" else spec.accel
    machine = ["-machine", f"{spec.arch.machine},memory-backend=ram"]
    return ["-accel", accel, *machine, "-cpu", spec.arch.cpu[spec.accel], "-smp", str(spec.cpu)]


def _devices(devices: Iterable[str]) -> list[str]:
    return [word for device in devices for word in ("-device", device)]


def _root_ports() -> list[str]:
    """Root ports as functions of two slots, so that they take no slot each."""
    ports = []
    for index in range(ROOT_PORTS):
        slot, function = 0x10 + index // 8, index % 8
        port = f"pcie-root-port,id=port{index},bus=pcie.0,chassis={index + 1},addr={slot:#x}.{function}"
        ports.append(port + (",multifunction=on" if function == 0 else ""))
    return _devices(ports)


def _share_slots(folder: int | None) -> list[str]:
    """What 9p can share later. Model ``none``: files of the guest are the caller's, with the mode it gave."""
    if folder is None:
        return []
    return [
        word
        for readonly in (False, True)
        for name in slots.names(readonly=readonly)
        for word in (
            "-fsdev",
            f"local,id={name},path=/proc/self/fd/{folder}/{name},security_model=none,multidevs=remap"
            + (",readonly=on" if readonly else ""),
        )
    ]
