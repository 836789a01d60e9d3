"""Modules are chosen with all they need, in an order in which each can be loaded."""

from __future__ import annotations

import lzma

import pytest

from sandbox_nb.errors import InvalidArgument, NotFound
from sandbox_nb.guest import modules

from . import fakes


def select(files, *, signed=False):
    return modules.select(files, fakes.RELEASE, signed=signed)


def names(chosen):
    return [module.name for module in chosen]


def test_what_a_module_needs_is_loaded_before_it():
    order = names(select(fakes.modules_tree()).boot)
    assert order == ["virtio_ring", "virtio", "virtio_pci", "vsock", "vmw_vsock_virtio_transport"]


def test_what_boot_has_late_does_not_repeat():
    chosen = select(fakes.modules_tree())
    assert not {*names(chosen.boot)} & {*names(chosen.late)}
    assert len(chosen.late) == len(set(names(chosen.late)))


def test_a_module_is_found_whether_its_file_has_dashes_or_underscores():
    files = fakes.modules_tree()
    files["kernel/some/virtio_rng.ko"] = files.pop("kernel/some/virtio-rng.ko")
    assert names(select(files).late) == names(select(fakes.modules_tree()).late)


@pytest.mark.parametrize("suffix", [".ko.xz", ".ko.zst", ".ko.gz"])
def test_packed_modules_are_unpacked(suffix):
    packed, plain = select(fakes.modules_tree(suffix=suffix)), select(fakes.modules_tree())
    assert packed == plain
    assert all(module.path.endswith(".ko") for module in packed.boot)


def test_what_is_built_in_is_neither_loaded_nor_missing():
    chosen = select(fakes.modules_tree())
    assert "ipv6" not in names(chosen.late)
    assert chosen.missing == ()


def test_a_module_a_machine_can_do_without_is_only_noted():
    assert select(fakes.modules_tree(without=("vmgenid", "isofs"))).missing == ("isofs", "vmgenid")


def test_a_module_without_which_the_agent_cannot_dial_is_an_error():
    with pytest.raises(NotFound, match="virtio_pci, which the machine needs"):
        select(fakes.modules_tree(without=("virtio_pci",)))


def test_a_rare_module_is_packed_and_left_to_modprobe():
    files = fakes.modules_tree()
    files["kernel/some/xfs.ko"] = fakes.module("xfs", "only_xfs,virtio", ("fs-xfs",))
    files["kernel/some/only_xfs.ko"] = fakes.module("only_xfs")
    chosen = select(files)
    assert names(chosen.rare) == ["only_xfs", "xfs"]
    assert not {"only_xfs", "xfs"} & {*names(chosen.boot), *names(chosen.late)}
    _, xfs = chosen.rare
    assert lzma.decompress(xfs.content) == xfs.data
    lines = dict(line.split(":") for line in chosen.dep().splitlines())
    needs = {
        "kernel/some/only_xfs.ko.xz",
        "kernel/drivers/virtio/virtio.ko",
        "kernel/drivers/virtio/virtio_ring.ko",
    }
    assert {*lines["kernel/some/xfs.ko.xz"].split()} == needs
    assert "alias fs-xfs xfs" in chosen.alias().splitlines()


def test_a_dependency_that_is_not_there_is_an_error():
    with pytest.raises(NotFound, match="virtio_ring, which virtio needs"):
        select(fakes.modules_tree(without=("virtio_ring",)))


def test_modules_that_need_each_other_end_all_the_same():
    files = fakes.modules_tree()
    files["kernel/drivers/virtio/virtio_ring.ko"] = fakes.module("virtio_ring", "virtio")
    assert {"virtio", "virtio_ring"} <= {*names(select(files).boot)}


@pytest.mark.parametrize("data", [b"", b"\x7fELF\x02\x01", fakes.module("x")[:100], b"text", b"\xfd7zXZ\x00bad"])
def test_a_damaged_module_is_named(data):
    files = fakes.modules_tree() | {"kernel/net/vmw_vsock/vsock.ko": data}
    with pytest.raises(InvalidArgument, match=r"kernel/net/vmw_vsock/vsock\.ko is damaged"):
        select(files)


def test_signatures_are_taken_off_unless_they_are_to_be_kept():
    plain = fakes.module("vsock")
    files = fakes.modules_tree() | {"kernel/net/vmw_vsock/vsock.ko": fakes.module("vsock", signed=True)}
    vsock = {module.name: module.data for module in select(files).boot}["vsock"]
    assert vsock == plain
    kept = {module.name: module.data for module in select(files, signed=True).boot}["vsock"]
    assert kept == fakes.module("vsock", signed=True)


def test_aliases_lead_to_their_modules():
    lines = select(fakes.modules_tree()).alias().splitlines()
    assert "alias fs-ext4 ext4" in lines
    assert "alias pci:v1AF4 virtio_pci" in lines


def test_modules_dep_names_all_that_is_needed_the_nearest_first():
    lines = dict(line.split(":") for line in select(fakes.modules_tree()).dep().splitlines())
    assert lines["kernel/drivers/virtio/virtio_ring.ko"] == ""
    assert lines["kernel/drivers/virtio/virtio_pci.ko"].split() == [
        "kernel/drivers/virtio/virtio.ko",
        "kernel/drivers/virtio/virtio_ring.ko",
    ]
