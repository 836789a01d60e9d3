"""A device in one word, as the command line and the magics take it.

::

    data=/srv/data.img,ro,target=/data          a disk: ID=PATH, then what it is beyond the defaults
    src=/home/me/src,ro                         a share: TAG=PATH
    /run/net.sock,mode=stream,dns=1.1.1.1       a network card: ENDPOINT
    forward=8080:80,forward=2222:22,restrict    one on QEMU's user-mode network

The keys are those of a TOML file (``config``), ``ro`` being short for ``readonly``. What holds a list is repeated.
A comma in a value is written twice, as QEMU has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox_nb import config
from sandbox_nb.config import Kind
from sandbox_nb.devices import NIC, Device, Disk, Filesystem, UserNIC
from sandbox_nb.errors import InvalidArgument

FORMS: dict[Kind, str] = {
    Disk: "ID=PATH[,ro][,vmdk][,target=DIR][,format=ext4][,size=2G][,backing=FILE]",
    Filesystem: "TAG=PATH[,ro][,target=DIR]",
    NIC: "ENDPOINT[,mode=stream][,mac=MAC][,addr=ADDR/BITS][,gateway=ADDR][,dns=ADDR][,features=MASK][,vfkit]",
    UserNIC: "[forward=HOST:GUEST][,restrict][,mac=MAC]",
}
"""What to type, for help and for errors."""

_FIRST: dict[Kind, tuple[str, ...]] = {
    Disk: ("block_id", "mount_path"),
    Filesystem: ("tag", "mount_path"),
    NIC: ("endpoint",),
    UserNIC: (),
}
"""What the first item says; two of them are joined by "="."""

_SWITCHES = {"readonly", "vmdk", "vfkit", "restrict"}
_NUMBERS = {"size", "features"}
_LISTS = {"backing", "dns"}


def parse(kind: Kind, text: str) -> Device:
    """The device that ``text`` says. Raises InvalidArgument, with the form that is needed."""
    items = _split(text)
    first = _FIRST[kind]
    table: dict[str, Any] = {}
    if first:
        table.update(_parse_first(kind, items.pop(0)))
    for item in items:
        _add(table, item)
    try:
        return config.from_table(kind, table)
    except InvalidArgument as error:
        raise InvalidArgument(f"{text}: {error}") from error


def render(device: Device) -> str:
    """The word that says ``device``. Raises InvalidArgument for one that no word can say."""
    table = config.to_table(device)
    first = "=".join(str(table.pop(key)) for key in _FIRST[type(device)])
    if isinstance(device, (Disk, Filesystem)) and "=" in str(device.name):
        raise InvalidArgument(f"{device.name!r} holds a =, which separates it from the path; use TOML or Python")
    return ",".join(part.replace(",", ",,") for part in [*filter(None, [first]), *_items(table)])


def _items(table: Mapping[str, Any]) -> list[str]:
    items = []
    for key, value in table.items():
        match value:
            case True:
                items.append("ro" if key == "readonly" else key)
            case list():
                items += [f"{key}={item}" for item in value]
            case dict():
                items += [f"{key}={host}:{guest}" for host, guest in value.items()]
            case _:
                items.append(f"{key}={value}")
    return items


def _split(text: str) -> list[str]:
    """The items between single commas, with double ones made single."""
    return [item.replace("\0", ",") for item in text.replace(",,", "\0").split(",")] if text else []


def _parse_first(kind: Kind, item: str) -> dict[str, str]:
    names = _FIRST[kind]
    parts = item.split("=", 1) if len(names) == 2 else [item]
    if len(parts) != len(names) or not all(parts):
        raise InvalidArgument(f"{item!r}: {FORMS[kind]} is needed")
    return dict(zip(names, parts, strict=True))


def _add(table: dict[str, Any], item: str) -> None:
    """Put one item into ``table``. Whether there is such a key is judged there."""
    key, equals, value = item.partition("=")
    key = "readonly" if key == "ro" else key
    if key in _SWITCHES:
        if equals:
            raise InvalidArgument(f"{item}: {key} takes no value")
        table[key] = True
    elif not value:
        raise InvalidArgument(f"{item!r}: KEY=VALUE is needed")
    elif key == "forward":
        host, _, guest = value.partition(":")
        table.setdefault(key, {})[host] = _number(key, guest)
    elif key in _LISTS and value != "none":
        table.setdefault(key, []).append(value)
    elif key in _NUMBERS:
        table[key] = _number(key, value) if key == "features" or value.isdecimal() else value
    else:
        table[key] = value


def _number(key: str, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise InvalidArgument(f"{key}={text!r}: a number is needed") from None
