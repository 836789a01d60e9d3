"""What a sandbox is made of: the options, their defaults, and what is wrong with them.

This is the only list of options. A keyword of ``Sandbox.start``, a key of a configuration file and a flag of
``sandbox-nb`` or ``%sandbox`` share the name, the default and the help text written here.

The ``with_*`` functions follow the reference interface (containerd's nerdbox, package ``sandbox``).
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from sandbox_nb.devices import (
    NIC,
    Device,
    Disk,
    DiskFlags,
    Filesystem,
    NetworkFlags,
    NetworkMode,
    UserNIC,
    check_apart,
    named,
)
from sandbox_nb.errors import InvalidArgument
from sandbox_nb.suggest import did_you_mean

__all__ = [
    "NIC",
    "Disk",
    "DiskFlags",
    "Filesystem",
    "NetworkFlags",
    "NetworkMode",
    "Option",
    "Options",
    "UserNIC",
    "with_disk",
    "with_fs",
    "with_init_args",
    "with_nic",
    "with_resources",
    "with_state_dir",
]

MAX_CPU = 255
"""q35 without an IOMMU addresses 255 processors."""

MIN_MEMORY = 96
"""MiB below which Debian's generic kernel and our initrd do not boot reliably."""

MAX_STANDBY = 64

MIN_HOST_CPUS = 0.01
"""The kernel counts no less: 1 ms of every 100."""

PATHS = {"FILE": "file", "PATH": "file", "DIR": "folder"}
"""What the placeholders of options that are paths on the host say is there."""

DEFAULT_CPU = 1
DEFAULT_MEMORY = 256

HOST_OVERHEAD = 512
"""MiB that a machine may take of the host beside the guest's memory where nobody said. QEMU and the vsock device
were seen to take 35 to 80, and at most 256 go to code translated for the guest."""


def _option(
    default: Any, text: str, *, metavar: str | None = None, choices: Sequence[str] = (), alias: str = ""
) -> Any:
    """Declare an option: its default, and what the command line and the magics say of it."""
    metadata = {"help": text, "metavar": metavar, "choices": tuple(choices), "alias": alias}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Everything that can be said about a machine before it starts.

    ``cpu`` and ``memory`` come together or not at all; neither given means 1 processor and 256 MiB.
    Build one with keywords, or by applying ``with_*`` options to the default with :meth:`applying`.
    """

    cpu: int | None = _option(None, "virtual processors, 1 to 255; goes with --memory", metavar="N", alias="cpus")
    memory: int | None = _option(None, "memory in MiB; goes with --cpu", metavar="MIB")
    image: str = _option("base", "guest image: base (busybox) or python", metavar="NAME")
    arch: str = _option(
        "host",
        "architecture of the guest: the host's, or another one, emulated",
        choices=("host", "x86_64", "aarch64"),
    )
    accel: str = _option(
        "auto", "accelerator: auto proves KVM and falls back to emulation", choices=("auto", "kvm", "tcg")
    )
    warm: str = _option(
        "auto",
        "restore a saved machine: auto and on make one the first time, off boots",
        choices=("auto", "on", "off"),
    )
    standby: int = _option(
        0,
        "machines like this one to keep restored and paused for the next starts while it runs",
        metavar="N",
    )
    transport: str = _option(
        "auto",
        "what carries vsock: our own device process, or the host kernel's vhost-vsock where it may be opened",
        choices=("auto", "vhost-user", "kernel"),
    )
    idle_timeout: float | None = _option(
        None, "stop the machine once nobody has used it for so long: no call, no process", metavar="SECONDS"
    )
    max_lifetime: float | None = _option(None, "stop the machine when it is that old", metavar="SECONDS")
    host_memory: int | None = _option(
        None,
        "most memory of the host that the machine may take, QEMU and all that works for it included, in MiB; "
        f"{HOST_OVERHEAD} more than --memory when not said, where a control group can hold it to that",
        metavar="MIB",
    )
    host_cpus: float | None = _option(
        None, "most processors of the host that the machine may keep busy, as 0.5", metavar="N"
    )
    network: str = _option("none", "network: none, or user for QEMU's user-mode network", choices=("none", "user"))
    disks: tuple[Disk, ...] = field(default=())
    filesystems: tuple[Filesystem, ...] = field(default=())
    nics: tuple[NIC | UserNIC, ...] = field(default=())
    init_args: tuple[str | bytes, ...] = field(default=())
    state_dir: str | os.PathLike[str] | None = _option(
        None, "folder for logs and the console file, kept; a private temporary one otherwise", metavar="DIR"
    )
    kernel: str | os.PathLike[str] | None = _option(None, "kernel to boot instead of the image's", metavar="FILE")
    modules: str | os.PathLike[str] | None = _option(None, "folder of that kernel's modules", metavar="DIR")
    busybox: str | os.PathLike[str] | None = _option(None, "static busybox to put in the image", metavar="FILE")
    rootfs: str | os.PathLike[str] | None = _option(
        None, "root file system: a folder, or an erofs, squashfs or ext4 image", metavar="PATH"
    )

    @staticmethod
    def from_toml(text: str) -> Options:
        """The options that TOML says; ``config`` describes the form. Raises InvalidArgument."""
        from sandbox_nb import config

        return config.from_toml(text)

    def to_toml(self) -> str:
        """These options as TOML: what is not the default. Raises InvalidArgument for a path that is no UTF-8."""
        from sandbox_nb import config

        return config.to_toml(self)

    def applying(self, options: Sequence[Option], keywords: Mapping[str, Any] | None = None) -> Options:
        """Return these options with ``options`` applied in order, then ``keywords`` by name.

        Of Options among them, what is not the default is applied; devices and arguments are added. Raises
        InvalidArgument for what is no option, and for a keyword that does not exist.
        """
        result = self
        for option in options:
            if isinstance(option, Options):
                result = option._on_top_of(result)
            elif callable(option):
                result = option(result)
            else:
                hint = f"; a name is said as Sandbox.started(name={option!r})" if isinstance(option, str) else ""
                raise InvalidArgument(f"{option!r} is no option; options are made by with_disk, with_nic, …{hint}")
        known = {f.name for f in dataclasses.fields(Options)}
        for name in keywords or ():
            if name not in known:
                said = did_you_mean(name, known) or f"; there are {', '.join(sorted(known))}"
                raise InvalidArgument(f"there is no option {name!r}{said}")
        return dataclasses.replace(result, **_normal(keywords or {})).checked()

    def checked(self) -> Options:
        """Return these options, or raise InvalidArgument naming the first that cannot be meant.

        Only what can be judged without looking at the host is judged here.
        """
        self._check_resources()
        self._check_choices()
        for option in dataclasses.fields(self):
            if option.metadata.get("metavar") in PATHS:
                _check_path(option.name, getattr(self, option.name))
        self._check_standby()
        _check_seconds("idle_timeout", self.idle_timeout)
        _check_seconds("max_lifetime", self.max_lifetime)
        self._check_caps()
        if not isinstance(self.init_args, tuple):
            raise InvalidArgument(f"init_args={self.init_args!r}: a list is needed")
        for argument in self.init_args:
            _check_init_arg(argument)
        _check_each("disks", self.disks, Disk)
        _check_each("filesystems", self.filesystems, Filesystem)
        _check_each("nics", self.nics, (NIC, UserNIC))
        check_apart(self.devices)
        return self

    @property
    def devices(self) -> tuple[Device, ...]:
        """All disks, shares and network cards, each with its name; ``network="user"`` is one more card.

        Raises InvalidArgument or AlreadyExists for the first that cannot be meant.
        """
        user = (UserNIC(),) if self.network == "user" else ()
        found: dict[str, Device] = {}
        for device in (*self.disks, *self.filesystems, *self.nics, *user):
            ready = named(device, found)
            found[str(ready.name)] = ready
        return tuple(found.values())

    @property
    def cpu_count(self) -> int:
        """The processors the machine gets."""
        return DEFAULT_CPU if self.cpu is None else self.cpu

    @property
    def memory_mib(self) -> int:
        """The memory the machine gets, in MiB."""
        return DEFAULT_MEMORY if self.memory is None else self.memory

    @property
    def wants_warm(self) -> bool:
        """Whether a saved machine may be restored."""
        return self.warm != "off"

    @property
    def init_args_bytes(self) -> list[bytes]:
        """The caller's arguments for the agent as bytes."""
        return [os.fsencode(argument) for argument in self.init_args]

    def _on_top_of(self, base: Options) -> Options:
        """These options where they are not the default, those of ``base`` elsewhere."""
        values = {option.name: getattr(self, option.name) for option in dataclasses.fields(self)}
        said = _normal({name: value for name, value in values.items() if value != getattr(_NOTHING_SAID, name)})
        for name, value in said.items():
            if isinstance(value, tuple) and isinstance(before := getattr(base, name), tuple):
                said[name] = (*before, *value)
        return dataclasses.replace(base, **said)

    def _check_resources(self) -> None:
        for name, value in (("cpu", self.cpu), ("memory", self.memory)):
            if value is not None and not _is_int(value):
                raise InvalidArgument(f"{name}={value!r}: a whole number is needed")
        # Each by itself first: what is said to be missing is said with them.
        if not 1 <= self.cpu_count <= MAX_CPU:
            raise InvalidArgument(f"cpu={self.cpu}: 1 to {MAX_CPU} are possible")
        if self.memory_mib < MIN_MEMORY:
            raise InvalidArgument(f"memory={self.memory}: at least {MIN_MEMORY} (MiB) is needed to boot")
        if self.memory is not None and self.memory > (available := _host_memory_mib()):
            raise InvalidArgument(f"memory={self.memory}: this host has {available} MiB")
        if (self.cpu is None) != (self.memory is None):
            given, missing = ("cpu", "memory") if self.memory is None else ("memory", "cpu")
            cpu, memory = self.cpu_count, self.memory_mib
            raise InvalidArgument(
                f"{given}={getattr(self, given)} without {missing}: give both, as in cpu={cpu}, memory={memory} "
                f"or --cpu {cpu} --memory {memory}; or neither"
            )

    def _check_caps(self) -> None:
        memory, cpus = self.host_memory, self.host_cpus
        if memory is not None and not _is_int(memory):
            raise InvalidArgument(f"host_memory={memory!r}: a whole number of MiB is needed, or None")
        if memory is not None and memory <= self.memory_mib:
            raise InvalidArgument(
                f"host_memory={memory}: the guest alone has {self.memory_mib} MiB; give more, or the guest less"
            )
        if cpus is not None and (not _is_number(cpus) or not MIN_HOST_CPUS <= cpus < math.inf):
            raise InvalidArgument(
                f"host_cpus={cpus!r}: a number of processors from {MIN_HOST_CPUS:g} on is needed, or None"
            )

    def _check_standby(self) -> None:
        if not _is_int(self.standby) or not 0 <= self.standby <= MAX_STANDBY:
            raise InvalidArgument(f"standby={self.standby!r}: a whole number from 0 to {MAX_STANDBY} is needed")
        if self.standby and not self.wants_warm:
            raise InvalidArgument(f"standby={self.standby} with warm=off: what stands by is a restored machine")

    def _check_choices(self) -> None:
        for option in dataclasses.fields(self):
            choices = option.metadata.get("choices")
            if choices and getattr(self, option.name) not in choices:
                raise InvalidArgument(
                    f"{option.name}={getattr(self, option.name)!r}: choose {' or '.join(choices)}"
                )
        if not isinstance(self.image, str) or not self.image:
            raise InvalidArgument(f"image={self.image!r}: the name of an image is needed")


_NOTHING_SAID = Options()

Option = Callable[[Options], Options] | Options
"""What ``with_disk`` and its like return, a change to the options; or Options, for what they say."""


def with_disk(
    block_id: str,
    mount_path: str | os.PathLike[str],
    flags: DiskFlags = DiskFlags.NONE,
    *,
    target: str | None = None,
    format: str | None = None,  # noqa: A002 - the field's name
    size: int | str | None = None,
    backing: Sequence[str | os.PathLike[str]] = (),
) -> Option:
    """Add a disk."""
    disk = Disk(block_id, mount_path, flags, target=target, format=format, size=size, backing=backing)
    return lambda options: dataclasses.replace(options, disks=(*options.disks, disk))


def with_fs(
    tag: str, mount_path: str | os.PathLike[str], *, readonly: bool = False, target: str | None = None
) -> Option:
    """Share a folder."""
    share = Filesystem(tag, mount_path, readonly, target=target)
    return lambda options: dataclasses.replace(options, filesystems=(*options.filesystems, share))


def with_nic(
    endpoint: str | os.PathLike[str],
    mac: str | None = None,
    mode: NetworkMode = NetworkMode.UNIXGRAM,
    features: int = 0,
    flags: int = 0,
    *,
    name: str | None = None,
    addr: str = "dhcp",
    gateway: str | None = None,
    dns: Sequence[str] = (),
) -> Option:
    """Add a network card."""
    nic = NIC(endpoint, mac, mode, features, flags, name=name, addr=addr, gateway=gateway, dns=dns)
    return lambda options: dataclasses.replace(options, nics=(*options.nics, nic))


def with_resources(cpu: int, memory: int) -> Option:
    """Set the number of processors and the memory in MiB."""
    return lambda options: dataclasses.replace(options, cpu=cpu, memory=memory)


def with_init_args(*arguments: str | bytes) -> Option:
    """Add arguments for the guest's init, the agent."""
    return lambda options: dataclasses.replace(options, init_args=(*options.init_args, *arguments))


def with_state_dir(path: str | os.PathLike[str]) -> Option:
    """Keep logs and the console file in a folder of the caller's."""
    return lambda options: dataclasses.replace(options, state_dir=path)


def _normal(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """What people write in a call as Options holds it: a list is a tuple, ``warm=True`` is ``warm="on"``."""
    normal = {name: tuple(value) if isinstance(value, list) else value for name, value in keywords.items()}
    if isinstance(warm := normal.get("warm"), bool):
        normal["warm"] = "on" if warm else "off"
    return normal


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_seconds(name: str, value: object) -> None:
    if value is None:
        return
    if not _is_number(value) or not 0 < value < math.inf:
        raise InvalidArgument(f"{name}={value!r}: seconds above 0, or None for no limit, are needed")


def _check_path(name: str, path: object) -> None:
    if path is None:
        return
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path) or "\0" in os.fsdecode(path):
        raise InvalidArgument(f"{name}={path!r}: a path on the host is needed, or None")


def _check_each(name: str, values: object, kinds: type | tuple[type, ...]) -> None:
    if not isinstance(values, tuple):
        raise InvalidArgument(f"{name}={values!r}: a list is needed")
    for value in values:
        if not isinstance(value, kinds):
            names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
            raise InvalidArgument(f"{name} has {value!r}, which is no {names}")


def _check_init_arg(argument: object) -> None:
    if not isinstance(argument, (str, bytes)):
        raise InvalidArgument(f"init_args has {argument!r}, which is neither text nor bytes")
    if b"\0" in os.fsencode(argument):
        raise InvalidArgument(f"init_args has {argument!r}: an argument cannot hold a NUL byte")


def _host_memory_mib() -> int:
    """The host's memory in MiB, or what the control group leaves of it where that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limits.append(int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):  # no such controller, or "max"
            continue
    return min(limits) >> 20
