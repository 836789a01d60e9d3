"""Kernel modules: which ones a machine needs, what they depend on, and the order to load them in.

A module tells about itself in its ELF section ``.modinfo``: ``key=value`` strings, each closed by NUL.
``depends`` names the modules it needs, ``alias`` the patterns that the kernel asks modprobe for. Dashes and
underscores are the same in a module's name (modprobe(8)).
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePosixPath

from sandbox_nb.errors import InvalidArgument, NotFound
from sandbox_nb.guest import compression

__all__ = ["BOOT", "LATE", "RARE", "Module", "Selection", "select"]

BOOT = ("virtio_pci", "vmw_vsock_virtio_transport")
"""Without these the agent cannot dial the host."""

LATE = (
    "crc32c_generic",  # libcrc32c asks for it by an alias, not as a dependency: first, or it is loaded twice
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "9p",
    "9pnet_virtio",
    "virtiofs",
    "overlay",
    "erofs",
    "squashfs",
    "ext4",
    "isofs",
    "loop",
    "vmgenid",
    "qemu_fw_cfg",
    "virtio_rng",
    "virtio_balloon",
    "af_packet",
    "ipv6",
)
"""What devices and file systems need, loaded once the agent is up. A kernel without one does without."""

RARE = ("xfs",)
"""Large, and seldom needed: packed in the image (4.2 MB to 0.6), and loaded when the kernel asks for it."""

_SIGNED = b"~Module signature appended~\n"
_SIGNATURE_HEADER = 12  # struct module_signature (include/linux/module_signature.h)

_SECTION = struct.Struct("<IIQQQQIIQQ")


@dataclass(frozen=True)
class Module:
    """A module: its path below /lib/modules/<release>, without a compression's suffix, and its plain content."""

    path: str
    data: bytes = field(repr=False)
    packed: bool = False
    """Whether it is kept packed in the image. modprobe unpacks it, the kernel could not."""

    @property
    def file(self) -> str:
        """Its path in the image, below /lib/modules/<release>."""
        return f"{self.path}.xz" if self.packed else self.path

    @property
    def content(self) -> bytes:
        """What is in that file. busybox's modprobe knows no other check sum."""
        return lzma.compress(self.data, check=lzma.CHECK_CRC32) if self.packed else self.data

    @property
    def name(self) -> str:
        """The name as modprobe spells it."""
        return _name(self.path)

    @cached_property
    def info(self) -> list[tuple[str, str]]:
        """The (key, value) pairs of .modinfo, in order."""
        strings = _modinfo(self.data).split(b"\0")
        pairs = (string.decode("utf-8", "replace").partition("=") for string in strings if string)
        return [(key, value) for key, _, value in pairs]

    @property
    def depends(self) -> list[str]:
        """Names of the modules that must be loaded before this one."""
        return [_name(name) for key, value in self.info if key == "depends" for name in value.split(",") if name]

    @property
    def aliases(self) -> list[str]:
        """Patterns by which the kernel may ask for this one."""
        return [value for key, value in self.info if key == "alias"]


@dataclass(frozen=True)
class Selection:
    """The modules of an image.

    ``boot``, ``late`` and ``rare`` are in load order and share none; ``missing`` names what the kernel lacks.
    """

    release: str
    boot: tuple[Module, ...]
    late: tuple[Module, ...]
    rare: tuple[Module, ...]
    missing: tuple[str, ...]
    builtin: str

    @property
    def all(self) -> tuple[Module, ...]:
        """Every module of the image."""
        return (*self.boot, *self.late, *self.rare)

    def dep(self) -> str:
        """Return the text of modules.dep: each module and all that it needs, the nearest first."""
        modules = {module.name: module for module in self.all}
        lines = []
        for module in sorted(modules.values(), key=lambda module: module.path):
            needs = [modules[name].file for name in reversed(_closure(module, modules))]
            lines.append(" ".join([f"{module.file}:", *needs]))
        return "".join(f"{line}\n" for line in lines)

    def alias(self) -> str:
        """Return the text of modules.alias."""
        modules = sorted(self.all, key=lambda module: module.path)
        return "".join(f"alias {alias} {module.name}\n" for module in modules for alias in module.aliases)


def missing(files: Mapping[str, bytes]) -> list[str]:
    """Return those of BOOT, LATE and RARE that are neither in ``files`` (see ``select``) nor built in."""
    loader = _Loader(files)
    return [name for name in (*BOOT, *LATE, *RARE) if not loader.has(name)]


def select(files: Mapping[str, bytes], release: str, *, signed: bool) -> Selection:
    """Choose BOOT, LATE and RARE with all they depend on from ``files``.

    ``files`` is the content of /lib/modules/<release>: relative paths and, read when asked for, what is in
    them. Their signatures are kept when ``signed``. To verify them takes half the time of loading a module
    (BOOT under emulation: 50 ms with, 27 without), and the kernels of Debian and Ubuntu load unsigned ones,
    too.

    Raises:
        NotFound: one of BOOT, or a module that some other depends on, is neither a module nor built in.
        InvalidArgument: a module is damaged.

    """
    loader = _Loader(files, signed=signed)
    boot = loader.load(BOOT)
    late = loader.load(name for name in LATE if loader.has(name))
    rare = loader.load(name for name in RARE if loader.has(name))
    packed = tuple(replace(module, packed=True) for module in rare)
    return Selection(release, boot, late, packed, tuple(missing(files)), loader.builtin)


class _Loader:
    """Reads modules in load order, each once."""

    def __init__(self, files: Mapping[str, bytes], *, signed: bool = True) -> None:
        self._signed = signed
        self.builtin = files["modules.builtin"].decode() if "modules.builtin" in files else ""
        self._files = files
        self._paths = {_name(path): path for path in files if _is_module(path)}
        self._builtin = {_name(path) for path in self.builtin.split()}
        self._done: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self._paths or name in self._builtin

    def load(self, names: Iterable[str]) -> tuple[Module, ...]:
        return tuple(module for name in names for module in self._with_dependencies(name, "the machine"))

    def _with_dependencies(self, name: str, wanted_by: str) -> Iterator[Module]:
        if name in self._done or (name in self._builtin and name not in self._paths):
            return
        if name not in self._paths:
            raise NotFound(f"the kernel module {name}, which {wanted_by} needs, is neither a file nor built in")
        self._done.add(name)
        module = self._read(self._paths[name])
        for needed in module.depends:
            yield from self._with_dependencies(needed, name)
        yield module

    def _read(self, path: str) -> Module:
        try:
            data = compression.decompress(self._files[path])
            module = Module(path[: path.index(".ko") + 3], data if self._signed else _unsigned(data))
            _ = module.info  # a damaged file is to be found here, where its name is known
        except (compression.Corrupt, struct.error) as error:
            raise InvalidArgument(f"the kernel module {path} is damaged: {error}") from error
        return module


def _closure(module: Module, modules: Mapping[str, Module]) -> list[str]:
    """Return the names of all that ``module`` needs, in load order."""
    order: list[str] = []
    for name in module.depends:
        if name in modules:
            order += [need for need in (*_closure(modules[name], modules), name) if need not in order]
    return order


def _is_module(path: str) -> bool:
    return ".ko" in PurePosixPath(path).suffixes


def _name(path: str) -> str:
    return PurePosixPath(path).name.split(".", 1)[0].replace("-", "_")


def _unsigned(data: bytes) -> bytes:
    """Return a module without its signature, which ends with its length, big-endian, and a magic text."""
    if not data.endswith(_SIGNED):
        return data
    end = len(data) - len(_SIGNED)
    (length,) = struct.unpack_from(">I", data, end - 4)
    return data[: end - _SIGNATURE_HEADER - length]


def _modinfo(elf: bytes) -> bytes:
    """Return the content of the section .modinfo of a 64-bit little-endian ELF file."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise compression.Corrupt("it is not a 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    sections = [_SECTION.unpack_from(elf, table + index * size) for index in range(count)]
    names = sections[names_index][4]
    for name, _, _, _, offset, length, *_ in sections:
        if elf[names + name : elf.index(b"\0", names + name)] == b".modinfo":
            return elf[offset : offset + length]
    raise compression.Corrupt("it has no section .modinfo")
