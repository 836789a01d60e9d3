"""Kernels of every kind become what QEMU boots fastest, or are refused with what they are."""

from __future__ import annotations

import gzip
import struct

import pytest

from sandbox_nb.errors import InvalidArgument, NotFound
from sandbox_nb.guest import kernel

from . import fakes


@pytest.mark.parametrize("compression", ["xz", "zstd", "gzip"])
def test_the_vmlinux_is_taken_out_of_a_bzimage(compression):
    found = kernel.parse(fakes.bzimage(fakes.vmlinux(), compression), "vmlinuz", "x86_64")
    assert (found.kind, found.release, found.note) == ("vmlinux", fakes.RELEASE, "")
    assert found.data.startswith(b"\x7fELF")
    assert b"kernel" * 100 in found.data


@pytest.mark.parametrize(
    ("image", "note"),
    [
        (fakes.bzimage(fakes.vmlinux(pvh=False)), "no PVH entry"),
        (fakes.bzimage(fakes.vmlinux(), "lz4"), "packed with lz4"),
        (fakes.bzimage(fakes.vmlinux(text=bytes(range(256)) * 400), damaged=True), "damaged"),
        (fakes.bzimage(b"not an ELF file" * 10), "not a 64-bit x86 ELF file"),
        (fakes.bzimage(b"nothing packed", "none"), "unknown way"),
    ],
)
def test_a_bzimage_that_cannot_be_taken_apart_is_booted_as_it_is(image, note):
    found = kernel.parse(image, "vmlinuz", "x86_64")
    assert (found.kind, found.data, found.release) == ("bzImage", image, fakes.RELEASE)
    assert note in found.note


def test_a_vmlinux_is_taken_with_the_release_in_its_version_string():
    found = kernel.parse(fakes.vmlinux(), "vmlinux", "x86_64")
    assert (found.kind, found.release) == ("vmlinux", fakes.RELEASE)


def test_what_is_not_loaded_is_left_out():
    whole = fakes.vmlinux(zeros=1_000_000)
    slim = kernel.loadable(whole)
    assert len(slim) < 2000
    assert kernel.loadable(slim) == slim
    (load, notes), (slim_load, slim_notes) = kernel._program_headers(whole), kernel._program_headers(slim)
    assert slim_load[5] == load[5] - 1_000_000 - 1, "the zeros at its end, one of them in the text, need no bytes"
    assert slim_load[6] == load[6], "the memory it takes is the same"
    assert slim_notes == notes
    assert struct.unpack_from("<Q", slim, 40) == (0,), "there is no section table"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "it is empty"),
        (b"#!/bin/sh\n", "it begins with b'#!/bin/s'"),
        # mtime: the bytes are the test's name, which is to be the same in every run.
        (gzip.compress(b"a kernel for some other boot loader", mtime=0), "it is gzip data"),
        (b"MZ" + bytes(0x36) + b"ARMd" + bytes(1000), "it is a kernel for arm64"),
        (bytes(0x202) + b"HdrS" + bytes(1000), "it begins with"),
        (fakes.bzimage(fakes.vmlinux())[:0x220], "it begins with"),
        (b"\x7fEL", "it begins with"),
    ],
)
def test_what_is_no_kernel_is_refused_with_what_it_is(tmp_path, data, what):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(InvalidArgument) as caught:
        kernel.load(path, "x86_64")
    assert str(path) in str(caught.value)
    assert what in str(caught.value)


ARM = fakes.vmlinux()[:18] + struct.pack("<H", 183) + fakes.vmlinux()[20:]


@pytest.mark.parametrize(
    ("elf", "flaw"),
    [
        pytest.param(fakes.vmlinux(pvh=False), "has no PVH entry", id="no PVH"),
        pytest.param(b"\x7fELF", "is not a 64-bit x86 ELF file", id="magic only"),
        pytest.param(fakes.vmlinux()[:100], "is torn", id="torn headers"),
        pytest.param(fakes.vmlinux()[:300], "is torn", id="torn segment"),
        pytest.param(ARM, "is not a 64-bit x86 ELF file", id="arm64"),
        pytest.param(fakes.module("a"), "has no PVH entry", id="a module"),
    ],
)
def test_an_elf_file_that_qemu_cannot_boot_is_refused_with_its_flaw(elf, flaw):
    with pytest.raises(InvalidArgument, match=f"program {flaw}.*give a bzImage"):
        kernel.parse(elf, "program", "x86_64")


def test_an_elf_file_that_is_not_linux_is_refused():
    with pytest.raises(InvalidArgument, match="no version string"):
        kernel.parse(fakes.vmlinux().replace(b"Linux version", b"Minix version"), "program", "x86_64")


@pytest.mark.parametrize("place", ["missing", "file/below"])
def test_a_kernel_that_is_not_there_is_not_found(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(NotFound, match=f"no kernel at .*{place}"):
        kernel.load(tmp_path / place, "x86_64")


def test_a_folder_is_no_kernel(tmp_path):
    with pytest.raises(InvalidArgument, match="cannot be read: Is a directory"):
        kernel.load(tmp_path, "x86_64")


IMAGE = fakes.arm64_image()


@pytest.mark.parametrize(
    "shipped",
    [
        pytest.param(IMAGE, id="plain, as Debian does"),
        pytest.param(gzip.compress(IMAGE, mtime=0), id="gzip, as Ubuntu does"),
        *(pytest.param(fakes.zboot(IMAGE, packing), id=f"zboot {packing}") for packing in ("gzip", "xz", "zstd")),
    ],
)
def test_the_image_for_arm64_is_taken_out_of_what_it_is_shipped_in(shipped):
    found = kernel.parse(shipped, "vmlinuz", "aarch64")
    assert (found.kind, found.data, found.release, found.note) == ("Image", IMAGE, fakes.RELEASE, "")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "it is empty"),
        (IMAGE[:60], "no version string"),
        (fakes.bzimage(fakes.vmlinux()), "it is a kernel for x86"),
        (gzip.compress(b"no kernel", mtime=0), "it is gzip data"),
        (gzip.compress(IMAGE, mtime=0)[:-20], "cannot be unpacked: its compressed data is damaged"),
        (fakes.zboot(IMAGE)[:30], "its header is torn"),
        (fakes.zboot(IMAGE)[:-10], r"its payload \(gzip\) is torn"),
        (fakes.zboot(IMAGE, "lz4"), "packed with lz4"),
        (fakes.zboot(b"some other program" * 10), "its payload is no Image for arm64"),
        (IMAGE.replace(b"Linux version", b"Minix version"), "no version string"),
    ],
)
def test_what_is_no_kernel_for_arm64_is_refused_with_what_it_is(data, what):
    with pytest.raises(InvalidArgument, match=f"vmlinuz.*{what}"):
        kernel.parse(data, "vmlinuz", "aarch64")
