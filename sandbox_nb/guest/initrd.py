"""What is in the initial file system: the agent as /init, busybox, kernel modules and a few files in /etc.

It is not compressed. Unpacking 8.5 MB takes a kernel under emulation 20 million instructions when plain, 45
with lz4, 130 with zstd and 145 with gzip (all of the boot takes 800), and the page cache of the host has room
for them.

The initrd is two archives, one behind the other: everything but the agent, then the agent. So a new agent costs
one copy, no unpacking of packages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sandbox_nb.errors import InvalidArgument
from sandbox_nb.guest import cpio, tree
from sandbox_nb.guest.modules import Module, Selection

__all__ = ["agent_archive", "busybox_entries", "module_entries", "skeleton", "system_archive"]

_USERS = """\
root:x:0:0:root:/root:{shell}
user:x:1000:1000:user:/home/user:{shell}
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
"""
_GROUPS = """\
root:x:0:
tty:x:5:
disk:x:6:
user:x:1000:
nogroup:x:65534:
"""
_HOSTS = """\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
"""
_NAMES = """\
passwd: files
group: files
hosts: files dns
"""
_PROFILE = r"""
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PAGER=less
PS1='\u@\h:\w\$ '
alias ls='ls --color=auto' ll='ls -l' grep='grep --color=auto'
""".lstrip()

_FOLDERS = (
    *("dev", "etc", "home", "mnt", "proc", "run", "sys"),
    *("usr", "usr/lib", "usr/local", "usr/local/bin", "usr/share", "var", "var/log"),
)


def system_archive(busybox: bytes, selection: Selection) -> bytes:
    """Return the archive of all that does not depend on the agent."""
    return cpio.archive(
        [*skeleton("/bin/sh"), *_merged_bin(), *busybox_entries(busybox, "bin"), *module_entries(selection)]
    )


def agent_archive(agent: bytes) -> bytes:
    """Return the archive that is put behind the other one."""
    return cpio.archive([tree.file("init", agent, 0o755)])


def skeleton(shell: str) -> Iterator[tree.Entry]:
    """Yield the folders and the files in /etc that every root has; ``shell`` is what people log in to."""
    yield tree.directory(".")  # else the root of the initial file system is 1777, as any tmpfs
    yield from map(tree.directory, _FOLDERS)
    yield tree.directory("root", 0o700)
    yield tree.directory("home/user", 0o755, owner=1000)
    yield tree.directory("tmp", 0o1777)
    yield tree.directory("var/tmp", 0o1777)
    yield tree.symlink("var/run", "../run")
    yield tree.symlink("etc/mtab", "../proc/self/mounts")
    yield tree.file("etc/passwd", _USERS.format(shell=shell))
    yield tree.file("etc/group", _GROUPS)
    yield tree.file("etc/hosts", _HOSTS)
    yield tree.file("etc/resolv.conf", "")
    yield tree.file("etc/nsswitch.conf", _NAMES)
    yield tree.file("etc/shells", f"{shell}\n")
    yield tree.file("etc/profile", _PROFILE)


def _merged_bin() -> Iterator[tree.Entry]:
    """Make all folders of programs one, so that /sbin/modprobe and /usr/bin/env are where others expect them."""
    yield tree.directory("bin")
    yield tree.symlink("sbin", "bin")
    yield tree.symlink("usr/bin", "../bin")
    yield tree.symlink("usr/sbin", "../bin")


def busybox_entries(busybox: bytes, folder: str) -> Iterator[tree.Entry]:
    """Yield busybox in ``folder`` and a link to it for each of its applets."""
    yield tree.file(f"{folder}/busybox", busybox, 0o755)
    for applet in applets(busybox):
        yield tree.symlink(f"{folder}/{applet}", "busybox")


def applets(busybox: bytes) -> list[str]:
    """Return the names of the applets of a busybox, read from its table of names.

    It is not run for that, so it may be another architecture's. The table is a run of NUL-closed names in ASCII
    order that ends with an empty one, and ``[`` and ``[[`` are always its first.
    """
    table = re.search(rb"\0(\[\0\[\[\0(?:[\x21-\x7e]+\0)+)\0", busybox)
    names = table[1].decode().split("\0")[:-1] if table else []
    if "sh" not in names:
        raise InvalidArgument("the busybox given is none, or has no sh: no table of applets with `sh` is in it")
    return [name for name in names if name != "busybox"]


def module_entries(selection: Selection) -> Iterator[tree.Entry]:
    """Yield the modules, what modprobe needs to find them, and the agent's lists."""
    folder = f"lib/modules/{selection.release}"
    parents = {parent for module in selection.all for parent in _parents(f"{folder}/{module.path}")}
    yield from map(tree.directory, sorted(parents | {"lib", "lib/modules", folder, "etc/sandbox_nb"}))
    for module in selection.all:
        yield tree.file(f"{folder}/{module.file}", module.content)
    yield tree.file(f"{folder}/modules.dep", selection.dep())
    yield tree.file(f"{folder}/modules.alias", selection.alias())
    yield tree.file(f"{folder}/modules.builtin", selection.builtin)
    yield tree.file("etc/sandbox_nb/modules.boot", _load_list(folder, selection.boot))
    yield tree.file("etc/sandbox_nb/modules.late", _load_list(folder, selection.late))


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")[:-1]
    for depth in range(3, len(parts) + 1):  # lib and lib/modules are there
        yield "/".join(parts[:depth])


def _load_list(folder: str, modules: tuple[Module, ...]) -> str:
    return "".join(f"/{folder}/{module.path}\n" for module in modules)
