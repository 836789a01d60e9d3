"""What is in the initial file system: the agent as /init, busybox, kernel modules and a few files in /etc.

The initrd is two archives, one behind the other: everything but the agent, then the agent. So a new agent costs
one copy, no unpacking of packages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sandbox_nb.errors import InvalidArgument
from sandbox_nb.guest import cpio
from sandbox_nb.guest.modules import Module, Selection

__all__ = ["agent_archive", "busybox_entries", "module_entries", "skeleton", "system_archive"]

_USERS = """\
root:x:0:0:root:/root:/bin/sh
user:x:1000:1000:user:/home/user:/bin/sh
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
_PROFILE = r"""
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PAGER=less
PS1='\u@\h:\w\$ '
alias ls='ls --color=auto' ll='ls -l' grep='grep --color=auto'
""".lstrip()

_FOLDERS = (
    *("bin", "dev", "etc", "etc/sandbox_nb", "home", "lib", "lib/modules", "mnt", "proc", "run", "sys"),
    *("usr", "usr/lib", "usr/local", "usr/local/bin", "usr/share", "var", "var/log"),
)


def system_archive(busybox: bytes, selection: Selection) -> bytes:
    """Return the archive of all that does not depend on the agent."""
    return cpio.archive([*skeleton(), *_merged_bin(), *busybox_entries(busybox), *module_entries(selection)])


def agent_archive(agent: bytes) -> bytes:
    """Return the archive that is put behind the other one."""
    return cpio.archive([cpio.file("init", agent, 0o755)])


def skeleton() -> Iterator[cpio.Entry]:
    """Yield the folders and the files in /etc that every root has."""
    yield cpio.directory(".")  # else the root of the initial file system is 1777, as any tmpfs
    yield from map(cpio.directory, _FOLDERS)
    yield cpio.directory("root", 0o700)
    yield cpio.directory("home/user", 0o755, owner=1000)
    yield cpio.directory("tmp", 0o1777)
    yield cpio.directory("var/tmp", 0o1777)
    yield cpio.symlink("var/run", "../run")
    yield cpio.symlink("etc/mtab", "../proc/self/mounts")
    yield cpio.file("etc/passwd", _USERS)
    yield cpio.file("etc/group", _GROUPS)
    yield cpio.file("etc/hosts", _HOSTS)
    yield cpio.file("etc/resolv.conf", "")
    yield cpio.file("etc/shells", "/bin/sh\n")
    yield cpio.file("etc/profile", _PROFILE)


def _merged_bin() -> Iterator[cpio.Entry]:
    """Make all folders of programs one, so that /sbin/modprobe and /usr/bin/env are where others expect them."""
    yield cpio.symlink("sbin", "bin")
    yield cpio.symlink("usr/bin", "../bin")
    yield cpio.symlink("usr/sbin", "../bin")


def busybox_entries(busybox: bytes) -> Iterator[cpio.Entry]:
    """Yield /bin/busybox and a link to it for each of its applets."""
    yield cpio.file("bin/busybox", busybox, 0o755)
    for applet in applets(busybox):
        yield cpio.symlink(f"bin/{applet}", "busybox")


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


def module_entries(selection: Selection) -> Iterator[cpio.Entry]:
    """Yield the modules, what modprobe needs to find them, and the agent's lists."""
    folder = f"lib/modules/{selection.release}"
    modules = (*selection.boot, *selection.late)
    parents = {parent for module in modules for parent in _parents(f"{folder}/{module.path}")}
    yield from map(cpio.directory, sorted(parents | {folder}))
    for module in modules:
        yield cpio.file(f"{folder}/{module.path}", module.data)
    yield cpio.file(f"{folder}/modules.dep", selection.dep())
    yield cpio.file(f"{folder}/modules.alias", selection.alias())
    yield cpio.file(f"{folder}/modules.builtin", selection.builtin)
    yield cpio.file("etc/sandbox_nb/modules.boot", _load_list(folder, selection.boot))
    yield cpio.file("etc/sandbox_nb/modules.late", _load_list(folder, selection.late))


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")[:-1]
    for depth in range(3, len(parts) + 1):  # lib and lib/modules are there
        yield "/".join(parts[:depth])


def _load_list(folder: str, modules: tuple[Module, ...]) -> str:
    return "".join(f"/{folder}/{module.path}\n" for module in modules)
