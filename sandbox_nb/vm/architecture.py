"""What differs between one architecture's machine and another's: QEMU's program, its machine, its processor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sandbox_nb.errors import InvalidArgument

# quiet…audit=0 leave out what Debian's kernel does at boot and a sandbox has no use for. panic=-1 with QEMU's
# -no-reboot turns a guest panic into the end of QEMU, at once.
# init_on_alloc=0: Debian's kernel zeroes what it allocates, which costs a third of what a guest can send.
_PARAMETERS = (
    "quiet loglevel=1 panic=-1 nokaslr mitigations=off random.trust_cpu=on cryptomgr.notests audit=0 "
    "init_on_alloc=0"
)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A row of the table.

    ``name`` is what ``uname -m`` says, ``package`` the one of Debian and Ubuntu that has ``qemu``. ``machine`` is
    QEMU's without the memory, ``cpu`` the processor for each accelerator, ``devices`` what is there from the
    start, ``probe_devices`` what the probe needs to end QEMU. ``one_at_boot`` are the kernel parameters that leave
    all processors but one to the agent.
    """

    name: str
    qemu: str
    package: str
    machine: str
    cpu: Mapping[str, str]
    kernel_parameters: str
    one_at_boot: str = "maxcpus=1"
    devices: tuple[str, ...] = ()
    probe_devices: tuple[str, ...] = ()


X86_64 = Architecture(
    name="x86_64",
    qemu="qemu-system-x86_64",
    package="qemu-system-x86",
    machine="q35,usb=off,vmport=off,smbus=off,sata=off,hpet=off",
    # Emulating page walks of five levels, not four, costs a tenth of a boot (1.86 s, not 1.68) and of each exec.
    # `rep movsb` is emulated byte by byte: a guest told that it is fast (ERMS, FSRM) copies three times as slowly.
    cpu={"kvm": "host", "tcg": "max,la57=off,erms=off,fsrm=off"},
    kernel_parameters=f"console=ttyS0 {_PARAMETERS} no_timer_check 8250.nr_uarts=1 tsc=reliable",
    # Else the kernel, believing that no other will come, patches its locks away, and back when one does.
    one_at_boot="maxcpus=1 noreplace-smp",
    # A new id with every restore: the guest's kernel reseeds its random numbers before anything else runs.
    devices=("vmgenid,guid=auto",),
    probe_devices=("isa-debug-exit,iobase=0x501,iosize=1",),
)

# No vmgenid: the guest is told of it by ACPI, and that needs a firmware on this machine. The agent's Configure has
# the kernel reseed.
AARCH64 = Architecture(
    name="aarch64",
    qemu="qemu-system-aarch64",
    package="qemu-system-arm",
    machine="virt,gic-version=max",
    # `max` has pointer authentication, which takes three times as long to boot when it is emulated.
    cpu={"kvm": "host", "tcg": "cortex-a57"},
    kernel_parameters=f"console=ttyAMA0 {_PARAMETERS}",
)

_TABLE = {architecture.name: architecture for architecture in (X86_64, AARCH64)}


def named(name: str) -> Architecture:
    """Return the row ``name``. Raises InvalidArgument when there is none."""
    try:
        return _TABLE[name]
    except KeyError:
        raise InvalidArgument(f"arch={name!r}: machines are of {' or '.join(_TABLE)}") from None
