"""Options as a TOML file, and back; and as Python source.

A file says what is not the default, under the names of the keywords of ``Sandbox.start``::

    cpu = 2
    memory = 512
    init_args = ["-debug"]

    [[disks]]
    block_id = "data"
    mount_path = "/srv/data.img"
    readonly = true

    [[nics]]                      # without an endpoint: on QEMU's user-mode network
    forward = { 8080 = 80 }

What Python says in ways that TOML does not have is said so: a flag is a key that is true (``readonly``, ``vmdk``,
``vfkit``), ``mode`` is "gram" or "stream", None is "none", and an init argument that is no UTF-8 a list of bytes.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from sandbox_nb.devices import NIC, Device, Disk, DiskFlags, Filesystem, NetworkFlags, NetworkMode, UserNIC
from sandbox_nb.errors import InvalidArgument, NotFound
from sandbox_nb.options import Options
from sandbox_nb.suggest import did_you_mean

Kind = type[Disk] | type[Filesystem] | type[NIC] | type[UserNIC]
Table = Mapping[str, Any]

FLAGS: dict[Kind, dict[str, enum.IntFlag]] = {
    Disk: {"readonly": DiskFlags.READONLY, "vmdk": DiskFlags.VMDK},
    Filesystem: {},
    NIC: {"vfkit": NetworkFlags.VFKIT},
    UserNIC: {},
}
"""The keys that stand for bits of a device's ``flags``."""

_MODES = {"gram": NetworkMode.UNIXGRAM, "stream": NetworkMode.UNIXSTREAM}
MODES = tuple(_MODES)
"""What ``mode`` may be."""

_NONE = {"gateway": None, "dns": ()}
"""What "none" says, of the keys whose default is another."""


def load(path: str | os.PathLike[str]) -> Options:
    """The options that the TOML file at ``path`` says. Raises NotFound, or InvalidArgument naming the file."""
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise NotFound(f"{os.fspath(path)} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{os.fspath(path)} is no TOML: {error}") from None
    try:
        return from_toml(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"{os.fspath(path)}: {error}") from error


def from_toml(text: str) -> Options:
    """The options that TOML says. Raises InvalidArgument."""
    if not isinstance(text, str):
        raise InvalidArgument(f"{text!r} is no TOML: text is needed; that of a file is Path(…).read_text()")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"no TOML: {error}") from None
    return Options().applying((), {name: _from_plain(name, value) for name, value in table.items()})


def to_toml(options: Options) -> str:
    """Options as TOML: what is not the default. Raises InvalidArgument for a path that is no UTF-8."""
    table = {name: _to_plain(value) for name, value in said(options).items() if name != "init_args"}
    if options.init_args:
        table["init_args"] = [_plain_argument(argument) for argument in options.init_args]
    return tomli_w.dumps(table)


def said(value: Options | Device) -> dict[str, Any]:
    """The fields that are not the default, by name."""
    return {
        field.name: getattr(value, field.name)
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != _default(field)
    }


def keys(kind: Kind) -> list[str]:
    """What the table of a device may hold: its fields, flags by their names."""
    names = [field.name for field in dataclasses.fields(kind) if field.name != "flags"]
    return [*names, *FLAGS[kind]]


def to_table(device: Device) -> dict[str, Any]:
    """A device as a table of what is not the default."""
    table: dict[str, Any] = {}
    for name, value in said(device).items():
        if name == "flags":
            table |= {key: True for key, flag in FLAGS[type(device)].items() if value & flag}
        elif name == "mode":
            table[name] = next(key for key, mode in _MODES.items() if mode == value)
        elif name in _NONE and not value:
            table[name] = "none"
        elif isinstance(value, Mapping):
            table[name] = {str(key): item for key, item in value.items()}
        else:
            table[name] = _to_plain(value)
    return table


def from_table(kind: Kind, table: Table) -> Device:
    """The device that a table says. Raises InvalidArgument, naming the key."""
    what = kind.__name__
    known = keys(kind)
    for key in table:
        if key not in known:
            raise InvalidArgument(f"{what} has no {key!r}, only {', '.join(known)}{did_you_mean(key, known)}")
    for field in dataclasses.fields(kind):
        if field.name not in table and _default(field) is dataclasses.MISSING:
            raise InvalidArgument(f"{what} without {field.name}")
    values = {key: _field(key, value) for key, value in table.items() if key not in FLAGS[kind]}
    bits = [flag for key, flag in FLAGS[kind].items() if _is_set(key, table.get(key, False))]
    if bits:
        values["flags"] = type(bits[0])(sum(bits))
    return kind(**values)


def to_python(options: Options) -> str:
    """A call that starts a machine with these options, names as ``from sandbox_nb import *`` brings them."""
    words = [f"{name}={_source(value)}" for name, value in said(options).items()]
    return f"Sandbox.started({', '.join(words)})"


def _default(field: dataclasses.Field[Any]) -> Any:
    """What a field is when not said; MISSING where it must be."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _to_plain(value: Any) -> Any:
    """A value as TOML has it."""
    if isinstance(value, (Disk, Filesystem, NIC, UserNIC)):
        return to_table(value)
    if isinstance(value, (list, tuple)):
        return [_to_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and not is_utf8(value):
        raise InvalidArgument(f"{value!r} is no UTF-8, which TOML is")
    return value


def _plain_argument(argument: str | bytes) -> str | list[int]:
    data = os.fsencode(argument)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


def is_utf8(text: str) -> bool:
    """Whether a text is one, and not bytes of another encoding that Python carries in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _from_plain(name: str, value: Any) -> Any:
    """The value of an option from what TOML said of it."""
    if not isinstance(value, list):
        return value
    if name == "init_args":
        return [_argument(item) for item in value]
    if name in ("disks", "filesystems", "nics"):
        return [from_table(_kind(name, item), item) for item in value]
    return value


def _kind(name: str, table: object) -> Kind:
    if not isinstance(table, dict):
        raise InvalidArgument(f"{name} has {table!r}: a table is needed, as below [[{name}]]")
    if name == "nics":
        return NIC if "endpoint" in table else UserNIC
    return Disk if name == "disks" else Filesystem


def _argument(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    try:
        return bytes(value)
    except (TypeError, ValueError):
        raise InvalidArgument(f"init_args has {value!r}: text, or a list of bytes, is needed") from None


def _field(key: str, value: Any) -> Any:
    """The value of a device's field from what a table says of it."""
    if value == "none" and key in _NONE:
        return _NONE[key]
    if key == "mode":
        if value not in _MODES:
            raise InvalidArgument(f"mode={value!r}: {' or '.join(_MODES)} is needed")
        return _MODES[value]
    if key == "forward" and isinstance(value, dict):
        return {_port(host): guest for host, guest in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise InvalidArgument(f"forward has {text!r}: a port of the host is a number")
    return int(text)


def _is_set(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{key}={value!r}: true or false is needed")
    return value


def _source(value: Any) -> str:
    """A value as Python source."""
    if isinstance(value, (Disk, Filesystem, NIC, UserNIC)):
        words = [f"{name}={_source(item)}" for name, item in said(value).items()]
        return f"{type(value).__name__}({', '.join(words)})"
    if isinstance(value, enum.IntFlag):
        return " | ".join(f"{type(value).__name__}.{flag.name}" for flag in value)
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_source(item) for item in value)}]"
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    return repr(value)
