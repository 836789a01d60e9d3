"""Options: what can be meant, and what is refused with the value named."""

from __future__ import annotations

import dataclasses

import pytest

from sandbox_nb import options
from sandbox_nb.errors import InvalidArgument
from sandbox_nb.options import (
    Disk,
    DiskFlags,
    NetworkMode,
    Options,
    UserNIC,
    with_disk,
    with_fs,
    with_init_args,
    with_nic,
    with_resources,
    with_state_dir,
)


def applied(*changes, **keywords):
    return Options().applying(changes, keywords)


def test_nothing_said_is_one_processor_and_256_mib():
    nothing = applied()
    assert (nothing.cpu, nothing.memory) == (None, None)
    assert (nothing.cpu_count, nothing.memory_mib) == (1, 256)


def test_an_option_and_a_keyword_say_the_same():
    said = applied(
        with_resources(2, 512),
        with_disk("data", "/tmp/a.img", DiskFlags.READONLY),
        with_fs("src", "/srv", readonly=True),
        with_nic("/run/net.sock", "02:00:00:00:00:01", NetworkMode.UNIXSTREAM),
        with_init_args("-debug", b"\xff"),
        with_state_dir("/tmp/state"),
    )
    keywords = {field.name: getattr(said, field.name) for field in dataclasses.fields(said)}
    assert applied(**keywords) == said
    assert applied(disks=[Disk("data", "/tmp/a.img", DiskFlags.READONLY)]).disks == said.disks


def test_options_apply_in_order_and_keywords_last():
    assert applied(with_resources(1, 256), with_resources(2, 512)).cpu == 2
    assert applied(with_resources(1, 256), cpu=4).cpu == 4


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        ({"cpu": 2}, "cpu=2 without memory"),
        ({"memory": 512}, "memory=512 without cpu"),
        ({"memory": -5}, "memory=-5: at least 96"),
        ({"cpu": 0}, "cpu=0: 1 to 255"),
        ({"cpu": 0, "memory": 256}, "cpu=0"),
        ({"cpu": "many"}, "cpu='many': a whole number"),
        ({"cpu": 256, "memory": 256}, "cpu=256"),
        ({"cpu": True, "memory": 256}, "cpu=True"),
        ({"cpu": 1.5, "memory": 256}, "cpu=1.5"),
        ({"cpu": 1, "memory": 0}, "memory=0"),
        ({"cpu": 1, "memory": 16}, "memory=16"),
        ({"cpu": 1, "memory": 10**9}, "memory=1000000000"),
        ({"cpu": 1, "memory": "512"}, "memory='512'"),
        ({"host_memory": 256}, "host_memory=256: the guest alone has 256 MiB"),
        ({"cpu": 1, "memory": 512, "host_memory": 400}, "host_memory=400: the guest alone has 512 MiB"),
        ({"host_memory": 0}, "host_memory=0"),
        ({"host_memory": "1G"}, "host_memory='1G': a whole number of MiB"),
        ({"host_memory": 512.5}, "host_memory=512.5: a whole number of MiB"),
        ({"host_memory": True}, "host_memory=True: a whole number of MiB"),
        ({"host_memory": float("nan")}, "host_memory=nan: a whole number of MiB"),
        ({"host_cpus": 0}, "host_cpus=0: a number of processors"),
        ({"host_cpus": 0.001}, "host_cpus=0.001"),
        ({"host_cpus": -1}, "host_cpus=-1"),
        ({"host_cpus": float("nan")}, "host_cpus=nan"),
        ({"host_cpus": float("inf")}, "host_cpus=inf"),
        ({"host_cpus": "2"}, "host_cpus='2'"),
        ({"host_cpus": True}, "host_cpus=True"),
        ({"accel": "hvf"}, "accel='hvf'"),
        ({"network": "bridge"}, "network='bridge'"),
        ({"image": ""}, "image=''"),
        ({"disks": ["/tmp/a.img"]}, "'/tmp/a.img'"),
        ({"disks": Disk("a", "b")}, "a list is needed"),
        ({"nics": [Disk("a", "b")]}, "NIC"),
        ({"init_args": ["a\0b"]}, "NUL"),
        ({"init_args": [3]}, "3"),
        ({"state_dir": 5}, "state_dir=5: a path on the host"),
        ({"rootfs": ""}, "rootfs='': a path on the host"),
        ({"kernel": "/a\0b"}, "kernel='/a\\x00b': a path on the host"),
        ({"cpus": 2}, "'cpus'; did you mean cpu?"),
        ({"colour": "red"}, "there are accel, arch"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_value(keywords, named):
    with pytest.raises(InvalidArgument) as caught:
        applied(**keywords)
    assert named in str(caught.value)


def test_what_is_no_option_is_refused():
    with pytest.raises(InvalidArgument, match="no option; options are made by with_disk, with_nic, …$"):
        applied({"cpu": 2})


def test_a_name_that_is_no_option_is_said_how_to_say():
    with pytest.raises(InvalidArgument, match=r"'web' is no option.*Sandbox\.started\(name='web'\)"):
        applied("web")


def test_options_apply_to_options_and_add_their_devices():
    first, second = Disk("a", "/a"), Disk("b", "/b")
    said = Options(cpu=2, memory=512, disks=[second], warm=False)
    assert applied(said) == applied(cpu=2, memory=512, disks=[second], warm=False)
    both = applied(with_disk("a", "/a"), with_state_dir("/s"), said, with_resources(1, 256))
    assert both == applied(cpu=1, memory=256, disks=[first, second], warm=False, state_dir="/s")
    with pytest.raises(InvalidArgument, match="disks=5: a list"):
        applied(Options(disks=5))


def test_memory_beyond_the_hosts_is_refused_with_what_there_is(monkeypatch):
    monkeypatch.setattr(options, "_host_memory_mib", lambda: 1000)
    assert applied(cpu=1, memory=1000).memory == 1000
    with pytest.raises(InvalidArgument, match="1000 MiB"):
        applied(cpu=1, memory=1001)


def test_any_byte_but_nul_can_be_an_init_argument():
    everything = bytes(range(1, 256))
    assert applied(init_args=[everything, "ü"]).init_args_bytes == [everything, "ü".encode()]


def test_a_user_nic_is_a_nic():
    assert applied(nics=[UserNIC(forward={8080: 80})]).nics[0].forward == {8080: 80}
