"""Options as hypothesis makes them up, and whether two of them are the same machine."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from sandbox_nb import NIC, AlreadyExists, Disk, DiskFlags, Filesystem, NetworkMode, Options, UserNIC
from sandbox_nb.devices import NetworkFlags

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
PATHS = TEXT | TEXT.map(lambda text: Path("/", text))
NAMES = st.text(st.sampled_from("abcXYZ019-_.,:+{}'\"ü"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
CARD_NAMES = st.none() | st.from_regex(r"[a-z,{}'][a-z0-9,={}]{0,5}", fullmatch=True)
TARGETS = st.none() | st.from_regex(r"/[a-z,= ]{1,8}[a-z]", fullmatch=True)
ADDRESSES = st.ip_addresses(v=4).map(str)
GATEWAYS = st.none() | ADDRESSES
MACS = st.none() | st.integers(1, 2**32).map(lambda n: f"02:00:{n.to_bytes(5, 'big')[1:].hex(':')}")
PORTS = st.integers(1, 65535)

FULL_DISKS = st.builds(
    Disk,
    NAMES,
    PATHS,
    st.just(DiskFlags.NONE),
    target=TARGETS,
    format=st.sampled_from([None, "ext4"]),
    size=st.sampled_from([None, "2G", "1024", 4096]),
    backing=st.lists(PATHS, max_size=2),
)
FLAGGED_DISKS = st.builds(Disk, NAMES, PATHS, st.sampled_from(list(map(DiskFlags, range(4)))), target=TARGETS)
SHARES = st.builds(Filesystem, NAMES, PATHS, st.booleans(), target=TARGETS)
CARDS = st.builds(
    NIC,
    PATHS,
    MACS,
    st.just(NetworkMode.UNIXGRAM),
    features=st.integers(0, 2**63),
    flags=st.sampled_from([0, NetworkFlags.VFKIT]),
    name=CARD_NAMES,
    addr=st.sampled_from(["dhcp", "none", "10.0.0.2/24"]),
    gateway=GATEWAYS,
    dns=st.lists(ADDRESSES, max_size=2),
) | st.builds(NIC, PATHS, mode=st.sampled_from(list(NetworkMode)))
USER_CARDS = st.builds(
    UserNIC,
    st.dictionaries(PORTS, PORTS, max_size=2),
    st.booleans(),
    name=CARD_NAMES,
    mac=MACS,
    gateway=GATEWAYS,
    dns=st.lists(ADDRESSES, max_size=2),
)
ARGUMENTS = TEXT | st.binary(max_size=6).map(lambda data: data.replace(b"\0", b""))


def _are_apart(options: Options) -> bool:
    """Whether no two devices have one name, or one place in the guest."""
    try:
        options.checked()
    except AlreadyExists:
        return False
    return True


def options(arguments: st.SearchStrategy[Any] = ARGUMENTS) -> st.SearchStrategy[Options]:
    """Machines that could be started, were the host to have their files."""
    resources = st.just({}) | st.fixed_dictionaries({"cpu": st.integers(1, 255), "memory": st.integers(96, 512)})
    seconds = st.none() | st.integers(1, 10**6) | st.floats(0, 10**6, exclude_min=True)
    rest = {
        "image": TEXT,
        "arch": st.sampled_from(["host", "x86_64", "aarch64"]),
        "transport": st.sampled_from(["auto", "vhost-user", "kernel"]),
        "idle_timeout": seconds,
        "max_lifetime": seconds,
        "host_memory": st.none() | st.integers(513, 10**6),
        "host_cpus": st.none() | st.integers(1, 255) | st.floats(0.01, 255),
        "accel": st.sampled_from(["auto", "kvm", "tcg"]),
        "warm": st.sampled_from(["auto", "on"]),
        "standby": st.integers(0, 9),
        "network": st.sampled_from(["none", "user"]),
        "disks": st.lists(FULL_DISKS | FLAGGED_DISKS, max_size=3).map(tuple),
        "filesystems": st.lists(SHARES, max_size=2).map(tuple),
        "nics": st.lists(CARDS | USER_CARDS, max_size=3).map(tuple),
        "init_args": st.lists(arguments, max_size=3).map(tuple),
        "state_dir": st.none() | PATHS,
        **dict.fromkeys(["kernel", "modules", "busybox", "rootfs"], st.none() | PATHS),
    }
    # What is added to the options is to be made up here too.
    assert {"cpu", "memory", *rest} == {field.name for field in dataclasses.fields(Options)}
    said = st.fixed_dictionaries({}, optional=rest)
    made = st.builds(lambda some, more: Options(**some, **more), resources, said)
    return made.filter(_are_apart)


def plain(value: Any) -> Any:
    """A value with what means the same made the same: paths and their text, tuples and lists, sizes, arguments."""
    if isinstance(value, Disk):
        value = dataclasses.replace(value, size=value.size_bytes)
    if isinstance(value, Options):
        value = dataclasses.replace(value, init_args=tuple(value.init_args_bytes))
    if dataclasses.is_dataclass(value):
        return type(value), {name.name: plain(getattr(value, name.name)) for name in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
