"""How much memory is left: of the host, or of the control group that has less."""

from __future__ import annotations

import pytest

from sandbox_nb import standby

GIB = 1 << 30


@pytest.fixture
def host(tmp_path):
    """A host with 8 GiB, 6 of them available, as its files say it."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 6291456 kB\n")
    (tmp_path / "sys/fs/cgroup/memory").mkdir(parents=True)
    return tmp_path


def write(folder, **files):
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


def test_without_a_group_it_is_the_hosts(host):
    assert standby.memory_mib(host) == (6144, 8192)


def test_a_group_without_a_limit_changes_nothing(host):
    group = host / "sys/fs/cgroup"
    write(group, memory__max="max\n", memory__current=f"{GIB}\n", memory__stat="anon 0\ninactive_file 0\n")
    assert standby.memory_mib(host) == (6144, 8192)


def test_a_groups_file_cache_is_available(host):
    group = host / "sys/fs/cgroup"
    write(
        group, memory__max=f"{2 * GIB}\n", memory__current=f"{GIB}\n", memory__stat=f"inactive_file {GIB // 2}\n"
    )
    assert standby.memory_mib(host) == (1536, 2048)


def test_groups_of_the_first_version(host):
    write(
        host / "sys/fs/cgroup/memory",
        memory__limit_in_bytes=f"{2 * GIB}\n",
        memory__usage_in_bytes=f"{GIB}\n",
        memory__stat="inactive_file 7\ntotal_inactive_file 0\n",
    )
    assert standby.memory_mib(host) == (1024, 2048)


def test_this_host_has_some():
    available, whole = standby.memory_mib()
    assert 0 < available <= whole
