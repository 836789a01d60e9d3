"""What a start is made of, all found before anything runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from sandbox_nb import __version__, host, link
from sandbox_nb.guest.image import Image
from sandbox_nb.host import Progress
from sandbox_nb.options import Options
from sandbox_nb.vm import accel, command, template
from sandbox_nb.vm.accel import Accelerator
from sandbox_nb.vm.caps import Caps
from sandbox_nb.vsock.transport import Choice

__all__ = ["Plan", "command_line", "make"]

BOOT_TIMEOUT = {"kvm": 20.0, "tcg": 90.0}
"""Seconds from QEMU's start to the agent's call. Some ten times what a loaded machine was seen to need."""


@dataclass(frozen=True)
class Plan:
    """The parts of a machine to be, and how it is to come up."""

    spec: command.Spec
    image: Image
    accelerator: Accelerator
    transport: Choice
    warm: bool
    caps: Caps

    @property
    def boot_timeout(self) -> float:
        """Seconds it gets to boot."""
        return BOOT_TIMEOUT[self.accelerator.name]

    @property
    def kind(self) -> str:
        """Machines of one kind can stand by for each other."""
        return f"{self.key} {self.transport.transport} {self.caps}"

    @property
    def key(self) -> str:
        """The key of its template."""
        return template.key(self.identity())

    def identity(self) -> dict[str, Any]:
        """All that makes one saved machine unlike another, beside the command line."""
        qemu = self.spec.qemu.resolve()
        found = qemu.stat()
        return {
            "sandbox_nb": __version__,
            "machine": {
                "image": self.image.name,
                "arch": self.spec.arch.name,
                "accel": self.spec.accel,
                "cpu": self.spec.cpu,
                "memory": self.spec.memory,
            },
            "image": self.image.digest,
            "qemu": [str(qemu), found.st_size, found.st_mtime_ns],
            "host": [accel.processor_flags(), os.uname().release] if self.accelerator.name == "kvm" else [],
            "argv": command.argv(self.spec, command.Fds(0, 0, 0, 0, 0, 0)),
        }


async def make(options: Options, progress: Progress | None) -> Plan:
    """Find QEMU, the accelerator, what carries vsock, and the image, which comes last: it may have to be built.

    Raises InvalidArgument, NotFound or FailedPrecondition for what is not there or does not work.
    """
    arch = host.guest_architecture(options)
    qemu = host.find_qemu(arch)
    transport = link.choose(options.transport)
    accelerator = await host.choose_accelerator(options)
    found = await host.ensure_image(options, progress)
    spec = command.Spec(
        arch=arch,
        qemu=qemu,
        accel=accelerator.name,
        cpu=options.cpu_count,
        memory=options.memory_mib,
        kernel=found.kernel,
        initrd=found.initrd,
        # Modules patch the kernel's code, so in an emulated guest they come before other processors do.
        preload=options.wants_warm or (accelerator.name == "tcg" and options.cpu_count > 1),
    )
    caps = Caps(spec.memory, spec.cpu, options.host_memory, options.host_cpus)
    return Plan(spec, found, accelerator, transport, options.wants_warm, caps)


async def command_line(options: Options, progress: Progress | None = None) -> list[str]:
    """QEMU's command line for a machine with these options, numbers of inherited descriptors as 0.

    Devices are not in it: they are plugged when QEMU runs. The image is built if it is not there. Raises what a
    start would raise before anything runs.
    """
    argv: list[str] = (await make(options, progress)).identity()["argv"]
    return argv
