"""Reading Debian packages without dpkg.

A .deb is an ar archive of three members: ``debian-binary`` (the text ``2.0``), ``control.tar`` and ``data.tar``,
the last two packed in one of several ways (deb(5)).
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sandbox_nb.errors import InvalidArgument
from sandbox_nb.guest import compression

__all__ = ["open_data"]

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60  # name 16, mtime 12, uid 6, gid 6, mode 8, size 10, then "`\n"


@contextmanager
def open_data(deb: Path, scratch: Path) -> Iterator[tarfile.TarFile]:
    """Open the files of the package ``deb`` as a tar that can be read in any order.

    Meanwhile the unpacked tar lies in an unnamed file in the folder ``scratch`` (a kernel's is 400 MB).

    Raises:
        InvalidArgument: it is not a package, or a damaged one.

    """
    with tempfile.TemporaryFile(dir=scratch) as plain:
        try:
            with deb.open("rb") as raw:
                compression.copy(_data_member(raw), plain)
            plain.seek(0)
            tar = tarfile.open(fileobj=plain, mode="r:")  # noqa: SIM115 - closed below, outside of this try
        except (compression.Corrupt, tarfile.TarError) as error:
            raise InvalidArgument(f"{deb} is not a whole Debian package: {error}") from error
        with tar:
            yield tar


def _data_member(raw: IO[bytes]) -> bytes:
    """Return the content of the member ``data.tar*`` as it is packed."""
    if raw.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise compression.Corrupt("it does not begin with !<arch>")
    while header := raw.read(_AR_HEADER):
        if len(header) < _AR_HEADER or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
            raise compression.Corrupt("a member's header is damaged")
        size = int(header[48:58])
        if header.startswith(b"data.tar"):
            data = raw.read(size)
            if len(data) < size:
                raise compression.Corrupt(f"it ends {size - len(data)} bytes early")
            return data
        raw.seek(size + size % 2, 1)  # members begin at even offsets
    raise compression.Corrupt("it has no member data.tar")
