"""The device process: arguments, sockets, signals."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from typing import NoReturn

from .address import MAX_PATH, listen
from .device import Device, log

USAGE = """\
usage: python -m sandbox_nb.vsock --socket PATH --uds PATH [options]

A vhost-user-vsock device: a guest's vsock ports as UNIX sockets, in Firecracker's manner.

  --socket PATH      listen here for QEMU (-chardev socket,path=PATH)
  --socket-fd N      or on this inherited, listening socket
  --uds PATH         listen here for connections to the guest; those of the guest to a port go to PATH_<port>
  --uds-fd N         listen on this inherited socket, bound to --uds
  --cid N            the guest's context id (3)
  --connections N    most connections at once (1024); more are refused
  --trace FILE       write every packet to FILE, for Wireshark
  --control-fd N     inherited socket for control, as control.py describes
  --uid N            for root: become this user once all is there; goes with inherited sockets
  --gid N            and have this group alone
"""
_ENDS = (signal.SIGTERM, signal.SIGINT)
_NUMBERS = {"socket-fd", "uds-fd", "cid", "connections", "control-fd", "uid", "gid"}
_WORDS = {"socket", "uds", "trace"}

LONGEST_SUFFIX = len("_4294967295")

OTHER_FILES = 32
"""File descriptors kept for other things than connections."""

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
"""prctl(2); linux/prctl.h."""

FEWEST = 8
"""Connections that a guest is of some use with."""


class Arguments:
    """The command line. ValueError for one that cannot work. By hand: argparse takes as long as all the rest."""

    def __init__(self, words: list[str]) -> None:
        given: dict[str, str] = {}
        for option, value in zip(words[::2], [*words[1::2], None], strict=False):
            name = option.removeprefix("--")
            if not option.startswith("--") or name not in _NUMBERS | _WORDS:
                raise ValueError(f"{option}: there is no such option")
            if value is None:
                raise ValueError(f"{option}: a value is needed")
            if name in _NUMBERS and not value.isdecimal():
                raise ValueError(f"{option} {value}: a number is needed")
            given[name] = value
        self.socket = given.get("socket")
        self.socket_fd = _number(given, "socket-fd")
        self.uds = given.get("uds", "")
        self.uds_fd = _number(given, "uds-fd")
        self.cid = int(given.get("cid", "3"))
        self.connections = int(given.get("connections", "1024"))
        self.trace = given.get("trace")
        self.control_fd = _number(given, "control-fd")
        self.uid = _number(given, "uid")
        self.gid = _number(given, "gid")
        self._check()

    def _check(self) -> None:
        if (self.socket is None) == (self.socket_fd is None):
            raise ValueError("one of --socket and --socket-fd is needed")
        if not self.uds:
            raise ValueError("--uds is needed")
        if len(os.fsencode(self.uds)) + LONGEST_SUFFIX > MAX_PATH:
            raise ValueError(f"--uds {self.uds}: with _<port> behind it, it must fit into {MAX_PATH} bytes")
        if not 3 <= self.cid <= 0xFFFF_FFFE:
            raise ValueError(f"--cid {self.cid}: a guest's context id is 3 to 4294967294")
        if (self.uid is None) != (self.gid is None):
            raise ValueError("--uid and --gid go together")
        if self.uid is not None and None in (self.socket_fd, self.uds_fd):
            raise ValueError("--uid needs --socket-fd and --uds-fd: what it makes itself it could not remove")
        if self.connections < 1:
            raise ValueError(f"--connections {self.connections}: at least 1 is needed")


def main(words: list[str]) -> int:
    """Serve until SIGTERM, SIGINT or the end of the control connection; the exit status."""
    if words == ["--help"]:
        sys.stdout.write(USAGE)
        return 0
    try:
        arguments = Arguments(words)
    except ValueError as error:
        log(f"{error}; --help lists the options")
        return 2
    for number in _ENDS:
        signal.signal(number, lambda *_: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # until it is known which files to remove
    made: list[str] = []
    try:
        vhost = _listener(arguments.socket, arguments.socket_fd, made)
        hybrid = _listener(arguments.uds, arguments.uds_fd, made)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
        if arguments.uid is not None and arguments.gid is not None:
            _become(arguments, arguments.uid, arguments.gid)
        _serve(arguments, vhost, hybrid)
    except OSError as error:
        log(str(error))
        return 1
    finally:
        for path in made:
            os.unlink(path)  # noqa: PTH108 (pathlib takes a third of the device's start)


def _become(arguments: Arguments, uid: int, gid: int) -> None:
    """Be another user from now on, who need not be able to read anything of what runs here.

    Sockets of the host are reached from the folder they are in, which that user may enter and need not find.
    """
    import ctypes
    import json  # noqa: F401 - control does when it is first asked, and could not any more

    # With other credentials the kernel forgets which signal the parent's death is to send, so it is told again.
    prctl, parent, number = ctypes.CDLL(None).prctl, os.getppid(), ctypes.c_int()
    prctl(_PR_GET_PDEATHSIG, ctypes.byref(number))
    folder, _, arguments.uds = arguments.uds.rpartition("/")
    os.chdir(folder or ".")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    prctl(_PR_SET_PDEATHSIG, number.value)
    if number.value and os.getppid() != parent:  # it died in between
        sys.exit(0)


def _serve(arguments: Arguments, vhost: socket.socket, hybrid: socket.socket) -> NoReturn:
    files = _most_files()
    if files < OTHER_FILES + FEWEST:
        raise OSError(f"{files} open files are allowed, {OTHER_FILES + FEWEST} are needed; see ulimit -n")
    limit = min(arguments.connections, files - OTHER_FILES)
    device = Device(vhost, hybrid, uds=arguments.uds, cid=arguments.cid, limit=limit)
    if arguments.control_fd is not None:
        device.control(socket.socket(fileno=arguments.control_fd))
    if arguments.trace:
        device.trace(arguments.trace)
    device.run()


def _number(given: dict[str, str], name: str) -> int | None:
    return int(given[name]) if name in given else None


def _listener(path: str | None, fd: int | None, made: list[str]) -> socket.socket:
    """The inherited listening socket, or a new one at `path`, which is added to those `made`."""
    if fd is not None:
        return socket.socket(fileno=fd)
    assert path is not None
    sock = listen(path)
    made.append(path)
    return sock


def _most_files() -> int:
    """Raise the limit on open files as far as the system lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
