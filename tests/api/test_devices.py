"""Disks, shares and network cards: what can be meant, and what is refused with the value named."""

from __future__ import annotations

import pytest

from sandbox_nb.devices import Disk, DiskFlags, Filesystem, NetworkFlags, NetworkMode, named
from sandbox_nb.errors import AlreadyExists, InvalidArgument
from sandbox_nb.options import NIC, Options, UserNIC, with_disk, with_fs, with_nic


def checked(**keywords):
    return Options().applying((), keywords)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (Disk("", "a"), "block_id=''"),
        (Disk("x" * 21, "a"), "20 bytes"),
        (Disk("ü" * 11, "a"), "20 bytes"),
        (Disk("a/b", "a"), "a/b"),
        (Disk("a b", "a"), "'a b'"),
        (Disk("a\n", "a"), "slashes"),
        (Disk("..", "a"), "'..'"),
        (Disk(7, "a"), "block_id=7"),
        (Disk("a", ""), "mount_path=''"),
        (Disk("a", "x\0y"), "mount_path"),
        (Disk("a", None), "mount_path=None"),
        (Disk("a", "b", 4), "0x4 is unknown; there is READONLY = 1, VMDK = 2"),
        (Disk("a", "b", "ro"), "'ro'"),
        (Disk("a", "b", target="data"), "target='data'"),
        (Disk("a", "b", target="/"), "target='/'"),
        (Disk("a", "b", target="/a/../etc"), "'/a/../etc'"),
        (Disk("a", "b", format="ntfs"), "format='ntfs'"),
        (Disk("a", "b", size="2 G"), "size='2 G'"),
        (Disk("a", "b", size="2GB"), "size='2GB'"),
        (Disk("a", "b", size=1000), "multiple of 512"),
        (Disk("a", "b", size=0), "size=0"),
        (Disk("a", "b", size=-512), "size=-512"),
        (Disk("a", "b", size=True), "size=True"),
        (Disk("a", "b", size="9999999T"), "9999999T"),
        (Disk("a", "b", DiskFlags.READONLY, size="1G"), "READONLY"),
        (Disk("a", "b", DiskFlags.READONLY, format="ext4"), "READONLY"),
        (Disk("a", "b", DiskFlags.VMDK, size="1G"), "VMDK"),
        (Disk("a", "b", backing="/base"), "a list of paths"),
        (Disk("a", "b", backing=[""]), "backing=''"),
        (Filesystem("", "a"), "tag=''"),
        (Filesystem("x" * 37, "a"), "36 bytes"),
        (Filesystem("a/b", "a"), "a/b"),
        (Filesystem("a", ""), "mount_path"),
        (Filesystem("a", "b", "yes"), "readonly='yes'"),
        (Filesystem("a", "b", target="./c"), "target='./c'"),
        (NIC(""), "endpoint=''"),
        (NIC("s", mode=7), "mode=7: UNIXGRAM (0) or UNIXSTREAM (1)"),
        (NIC("s", flags=4), "0x4 is unknown"),
        (NIC("s", flags=2), "VNET_HDR"),
        (NIC("s", mode=NetworkMode.UNIXSTREAM, flags=NetworkFlags.VFKIT), "UNIXGRAM"),
        (NIC("s", features=-1), "features=-1"),
        (NIC("s", "02:00:00:00:00"), "six bytes"),
        (NIC("s", "02-00-00-00-00-01"), "six bytes"),
        (NIC("s", "0g:00:00:00:00:01"), "six bytes"),
        (NIC("s", "01:00:5e:00:00:01"), "multicast"),
        (NIC("s", "ff:ff:ff:ff:ff:ff"), "multicast"),
        (NIC("s", "00:00:00:00:00:00"), "nobody's"),
        (NIC("s", name="a-name-too-long!"), "15 bytes"),
        (NIC("s", name="eth:0"), "colon"),
        (NIC("s", addr="10.0.0.2"), "addr='10.0.0.2'"),
        (NIC("s", addr="10.0.0.2/33"), "10.0.0.2/33"),
        (NIC("s", addr=None), "addr=None"),
        (NIC("s", gateway="10.0.0"), "gateway='10.0.0'"),
        (NIC("s", addr="10.0.0.2/24", gateway="fd00::1"), "another family"),
        (NIC("s", dns="1.1.1.1"), "a list"),
        (NIC("s", dns=["example.org"]), "example.org"),
        (NIC("s", dns=["1.1.1.1"] * 4), "at most 3"),
        (UserNIC(forward=[8080]), "[8080]"),
        (UserNIC(forward={0: 80}), "port 0"),
        (UserNIC(forward={8080: 65536}), "port 65536"),
        (UserNIC(forward={"8080": 80}), "port '8080'"),
        (UserNIC(restrict=1), "restrict=1"),
        (UserNIC(mac="03:00:00:00:00:00"), "multicast"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_value(device, said):
    kinds = {Disk: "disks", Filesystem: "filesystems"}
    with pytest.raises(InvalidArgument) as caught:
        checked(**{kinds.get(type(device), "nics"): [device]})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "device",
    [
        Disk("x" * 20, "a"),
        Disk("ü" * 10, "a"),
        Disk("a", "b", 3),
        Disk("a", "b", size="512M", format="ext4", target="/a/..b/c"),
        Filesystem("x" * 36, "a"),
        NIC("s", "FE:00:00:00:00:01", 1),
        NIC("s", flags=1, addr="fd00::2/64", gateway="fd00::1", dns=["::1", "1.1.1.1"]),
        NIC("s", addr="none"),
        UserNIC({1: 65535}, restrict=True, addr="dhcp"),
    ],
)
def test_what_can_be_meant_is_taken(device):
    device.check()


@pytest.mark.parametrize(
    ("size", "count"),
    [(512, 512), ("512", 512), ("4K", 4096), ("2G", 2 << 30), ("512M", 512 << 20), ("1T", 1 << 40)],
)
def test_sizes_are_bytes_or_have_a_unit(size, count):
    assert Disk("a", "b", size=size).size_bytes == count


def test_a_path_alone_is_no_device():
    with pytest.raises(InvalidArgument, match=r"'a\.img' is no device"):
        named("a.img", ())


def test_names_are_unique_across_kinds():
    with pytest.raises(AlreadyExists, match="'data' is taken"):
        checked(disks=[Disk("data", "a"), Disk("data", "b")])
    with pytest.raises(AlreadyExists, match="'data' is taken"):
        checked(disks=[Disk("data", "a")], filesystems=[Filesystem("data", "b")])
    with pytest.raises(AlreadyExists, match="'net0' is taken"):
        checked(nics=[NIC("s"), NIC("t", name="net0")])


def test_cards_without_a_name_get_the_first_free_one():
    options = checked(nics=[UserNIC(name="net1"), NIC("s"), NIC("t")], network="user")
    assert [device.name for device in options.devices] == ["net1", "net0", "net2", "net3"]
    assert named(NIC("s"), ["net0", "net1"]).name == "net2"
    assert named(NIC("s", name="lan"), ["net0"]).name == "lan"


def test_network_user_is_one_more_card():
    assert checked().devices == ()
    (card,) = checked(network="user").devices
    assert card == UserNIC(name="net0")
    assert card.addr == "10.0.2.15/24"


def test_two_devices_are_not_mounted_at_one_place():
    share = Filesystem("src", "/srv")
    assert share.mount_point == "/mnt/src"
    with pytest.raises(AlreadyExists, match="/mnt/src"):
        checked(disks=[Disk("data", "a", target="/mnt//src/")], filesystems=[share])


def test_two_cards_do_not_have_one_address():
    with pytest.raises(AlreadyExists, match="02:00:00:00:00:0a"):
        checked(nics=[NIC("s", "02:00:00:00:00:0A"), UserNIC(mac="02:00:00:00:00:0a")])


def test_an_option_says_all_that_the_device_says():
    options = Options().applying(
        [
            with_disk("d", "/a", DiskFlags.NONE, target="/d", format="ext4", size="1G", backing=["/b"]),
            with_fs("f", "/f", readonly=True, target="/g"),
            with_nic(
                "/s", None, NetworkMode.UNIXSTREAM, 0, 0, name="lan", addr="none", gateway="10.0.0.1", dns=[]
            ),
        ]
    )
    assert options.devices == (
        Disk("d", "/a", target="/d", format="ext4", size="1G", backing=["/b"]),
        Filesystem("f", "/f", True, target="/g"),
        NIC("/s", None, NetworkMode.UNIXSTREAM, name="lan", addr="none", gateway="10.0.0.1", dns=[]),
    )


def test_what_carries_vsock_is_one_of_three():
    assert checked().transport == "auto"
    assert checked(transport="kernel").transport == "kernel"
    with pytest.raises(InvalidArgument, match="transport='virtio'"):
        checked(transport="virtio")
