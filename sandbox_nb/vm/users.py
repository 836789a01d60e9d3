"""Whom a machine's processes run as where root starts it: a user who owns nothing and whom nobody else is.

Anybody else's QEMU and vsock device run as who started them. Root's would have the whole machine to give away, so
they run as a user that no other process has, not even another machine's: they cannot look into each other. What
they work with they are handed as open descriptors.
"""

from __future__ import annotations

import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

RANGES = (range(0x7000_0000, 0x7FFE_0000), range(61_184, 65_520))
"""User ids that are nobody's, by systemd's UIDS-GIDS: first those it calls unused, then those it gives to services
for as long as they run. A user namespace, as a container's, may have the second alone."""

KVM = Path("/dev/kvm")


@dataclass(frozen=True)
class User:
    """Ids to run under, with no further groups."""

    uid: int
    gid: int


def for_machine(accel: str) -> User:
    """A user for one machine, where there is no ``obstacle``."""
    ids = _mapped(Path("/proc/self/uid_map"))
    assert ids is not None, "obstacle has looked for them"
    uid = ids[secrets.randbelow(len(ids))]
    return User(uid, KVM.stat().st_gid if accel == "kvm" else uid)


def may(user: User, path: Path, needed: int) -> bool:
    """Whether a user of ``for_machine`` may open a file: ``needed`` is of os.R_OK and os.W_OK.

    Nobody's groups and files are that user's, so it has the rights that everybody has.
    """
    real = path.resolve()
    enters = all(parent.stat().st_mode & stat.S_IXOTH for parent in real.parents)
    return enters and real.stat().st_mode & needed == needed


def obstacle(accel: str) -> str | None:
    """What keeps root from running QEMU as somebody else; None if nothing does."""
    if _mapped(Path("/proc/self/uid_map")) is None or _mapped(Path("/proc/self/gid_map")) is None:
        return "this user namespace has no user ids to spare"
    if accel == "kvm" and not _group_may(KVM):
        return f"{KVM} is for root alone: sudo chgrp kvm {KVM}, sudo chmod g+rw {KVM}"
    return None


def _group_may(device: Path) -> bool:
    """Whether who is in the group of ``device``, which is not root's, may read and write it."""
    found = device.stat()
    return found.st_gid != 0 and found.st_mode & (stat.S_IRGRP | stat.S_IWGRP) == stat.S_IRGRP | stat.S_IWGRP


def _mapped(table: Path) -> range | None:
    """The first of RANGES that this user namespace has whole."""
    for ids in RANGES:
        if any(first <= ids[0] and ids[-1] <= last for first, last in _lines(table)):
            return ids
    return None


def _lines(table: Path) -> Iterable[tuple[int, int]]:
    """First and last id of each line of user_namespaces(7)'s uid_map: id inside, id outside, length."""
    for line in table.read_text().splitlines():
        first, _, length = map(int, line.split())
        yield first, first + length - 1
