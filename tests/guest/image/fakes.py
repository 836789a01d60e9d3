"""Small kernels, modules, packages and a package archive, made here, so that most tests need no network."""

from __future__ import annotations

import hashlib
import io
import lzma
import struct
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

import gzip

RELEASE = "6.9.0-7-amd64"
LATE = (
    *("crc32c_generic", "virtio_blk", "virtio_net", "virtio_console", "9p", "9pnet_virtio", "virtiofs", "overlay"),
    *("erofs", "squashfs", "ext4", "isofs", "loop", "vmgenid", "qemu_fw_cfg", "virtio_rng", "virtio_balloon"),
)
RARE = ("xfs",)
BUILTIN = "kernel/net/packet/af_packet.ko\nkernel/net/ipv6/ipv6.ko\n"
COMPRESS = {"gzip": gzip.compress, "xz": lzma.compress, "zstd": zstd.compress, "none": bytes}


def vmlinux(*, pvh: bool = True, text: bytes = b"kernel" * 100 + b"\0", zeros: int = 0) -> bytes:
    """An ELF of one loaded segment, which begins with its notes, and a section table behind it."""
    name, kind = (b"Xen\0", 18) if pvh else (b"GNU\0", 3)
    note = struct.pack("<III", 4, 8, kind) + name + bytes(8)
    segment = note + b"Linux version " + RELEASE.encode() + b" (someone@there)\0" + text + bytes(zeros)
    start = 64 + 2 * 56
    header = struct.pack(
        *("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + bytes(9), 2, 62, 1, 0x1000000),
        *(64, start + len(segment), 0, 64, 56, 2, 64, 3, 2),
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, start, 0, 0x1000000, len(segment), len(segment), 4096)
    notes = struct.pack("<IIQQQQQQ", 4, 4, start, 0, 0x1000000, len(note), len(note), 4)
    return header + load + notes + segment + b"S" * 192


def bzimage(vmlinux: bytes, compression: str = "xz", *, damaged: bool = False) -> bytes:
    """A bzImage: one sector of boot code, one of set-up code, then the packed kernel and its unpacked size."""
    payload = b"\x02\x21\x4c\x18" + vmlinux if compression == "lz4" else COMPRESS[compression](vmlinux)
    if damaged:
        payload = payload[: len(payload) // 2] + bytes(len(payload) - len(payload) // 2)
    payload += struct.pack("<I", len(vmlinux))
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x100)
    version = f"{RELEASE} (someone@there) #1\0".encode()
    head[0x300 : 0x300 + len(version)] = version
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + bytes(16) + payload


def arm64_image(text: bytes = b"kernel" * 100) -> bytes:
    """An Image: a header of 64 bytes whose magic is near its end, and code behind it."""
    header = b"MZ".ljust(0x38, b"\0") + b"ARMd" + bytes(4)
    return header + b"Linux version " + RELEASE.encode() + b" (someone@there)\0" + text


def zboot(image: bytes, packing: str = "gzip") -> bytes:
    """An EFI program that carries a packed kernel; behind that its unpacked size, which gzip has in its format."""
    payload = b"\x02\x21\x4c\x18" + image if packing == "lz4" else COMPRESS[packing](image)
    header = b"MZ\0\0zimg" + struct.pack("<II", 4096, len(payload)) + bytes(8) + packing.encode()
    size = b"" if packing == "gzip" else struct.pack("<I", len(image))
    return header.ljust(4096, b"\0") + payload + size


def module(name: str, depends: str = "", aliases: tuple[str, ...] = (), *, signed: bool = False) -> bytes:
    """A module: an ELF whose only section is .modinfo; ``signed`` appends what the kernel's build does."""
    pairs = [f"name={name}", f"depends={depends}", *(f"alias={alias}" for alias in aliases)]
    info = b"".join(pair.encode() + b"\0" for pair in pairs)
    names = b"\0.modinfo\0.shstrtab\0"
    table = 64 + len(info) + len(names)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + bytes(9), 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2
    )
    sections = [(0, 0, 0, 0, 0, 0), (1, 1, 0, 64, len(info), 0), (10, 3, 0, 64 + len(info), len(names), 0)]
    body = b"".join(struct.pack("<IIQQQQIIQQ", n, t, 0, a, o, s, 0, 0, 1, e) for n, t, a, o, s, e in sections)
    signature = bytes(300) + struct.pack(">8xI", 300) + b"~Module signature appended~\n" if signed else b""
    return header + info + names + body + signature


def modules_tree(*, without: tuple[str, ...] = (), suffix: str = ".ko") -> dict[str, bytes]:
    """What lies below lib/modules/<release>: all that a machine wants, with a few dependencies."""
    pack = {".ko": bytes, ".ko.xz": lzma.compress, ".ko.zst": zstd.compress, ".ko.gz": gzip.compress}[suffix]
    files = {
        "kernel/drivers/virtio/virtio": module("virtio", "virtio_ring"),
        "kernel/drivers/virtio/virtio_ring": module("virtio_ring"),
        "kernel/drivers/virtio/virtio_pci": module("virtio_pci", "virtio,virtio_ring", ("pci:v1AF4",)),
        "kernel/net/vmw_vsock/vsock": module("vsock"),
        "kernel/net/vmw_vsock/vmw_vsock_virtio_transport": module(
            "vmw_vsock_virtio_transport", "virtio,virtio_ring,vsock"
        ),
    }
    for name in (*LATE, *RARE):
        needs = "virtio,virtio_ring" if name.startswith("virtio_") else ""
        files[f"kernel/some/{name.replace('_', '-')}"] = module(name, needs, (f"fs-{name}",))
    kept = {f"{path}{suffix}": pack(data) for path, data in files.items() if path.split("/")[-1] not in without}
    return kept | {"modules.builtin": BUILTIN.encode()}


def busybox(*applets: str) -> bytes:
    """What looks like busybox to the builder: a table of the applets' names."""
    names = sorted({"[", "[[", "busybox", "modprobe", "sh", *applets})
    return b"\x7fELF some code\0" + b"".join(name.encode() + b"\0" for name in names) + b"\0 more code"


def write_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def deb(files: Mapping[str, bytes], control: str, compression: str = "xz") -> bytes:
    """A package: an ar archive of the version, the control file and the files."""
    suffix = {"gzip": ".gz", "xz": ".xz", "zstd": ".zst", "none": ""}[compression]
    pack = COMPRESS[compression]
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(_tar({"./control": control.encode()})),
        f"data.tar{suffix}": pack(_tar({f"./{path}": data for path, data in files.items()})),
    }
    out = bytearray(b"!<arch>\n")
    for name, data in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        out += data + b"\n" * (len(data) % 2)
    return bytes(out)


def _tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.mode = 0o755
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


class Archive:
    """A package archive in a folder, and the apt configuration that makes it the only one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "apt.conf"
        self._packages: dict[tuple[str, str], str] = {}
        folder.mkdir()
        (folder / "sources.list").write_text(f"deb [trusted=yes] file:{folder} ./\n")
        (folder / "empty").mkdir()
        self.config.write_text(
            f'Dir::Etc::sourcelist "{folder}/sources.list";\n'
            f'Dir::Etc::sourceparts "{folder}/empty";\n'
            f'APT::Update::Post-Invoke {{ "touch {folder}/hook-ran"; }};\n'
        )

    def add(
        self,
        name: str,
        files: Mapping[str, bytes],
        depends: str = "",
        version: str = "1.0",
        arch: str = "amd64",
    ) -> None:
        """Put a package into the archive, in place of an older one of that name and architecture."""
        control = f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: someone\n"
        control += f"Depends: {depends}\n" if depends else ""
        data = deb(files, control + "Description: fake\n")
        path = self.folder / f"{name}_{version}_{arch}.deb"
        path.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        place = f"Filename: ./{path.name}\nSize: {len(data)}\nSHA256: {digest}\n"
        self._packages[name, arch] = f"{control}{place}Description: fake\n"
        self.write()

    def remove(self, name: str) -> None:
        del self._packages[name, "amd64"]
        self.write()

    def write(self) -> None:
        (self.folder / "Packages").write_text("\n".join(self._packages.values()))

    def add_debian(self, *, version: str = "1.0", **tree: object) -> None:
        """Debian's names: one package with the kernel and all its modules."""
        image = f"linux-image-{RELEASE}"
        files = {f"lib/modules/{RELEASE}/{path}": data for path, data in modules_tree(**tree).items()}
        files[f"boot/vmlinuz-{RELEASE}"] = bzimage(vmlinux())
        self.add(image, files, version=version)
        self.add("linux-image-amd64", {"usr/share/doc/x": b""}, depends=f"{image} (= {version})", version=version)
        self.add("busybox-static", {"bin/busybox": busybox("ls")})

    def add_debian_arm64(self) -> None:
        """The same for arm64, whose kernel is an Image."""
        image = f"linux-image-{RELEASE}"
        files = {f"lib/modules/{RELEASE}/{path}": data for path, data in modules_tree().items()}
        files[f"boot/vmlinuz-{RELEASE}"] = arm64_image()
        self.add(image, files, arch="arm64")
        self.add("linux-image-arm64", {"usr/share/doc/x": b""}, depends=f"{image} (= 1.0)", arch="arm64")
        self.add("busybox-static", {"bin/busybox": busybox("ls")}, arch="arm64")
