"""The boot that a cold start is held against: the same QEMU, kernel, command line, devices, memory and modules.

Its init does nothing but write one byte to the console. What a start takes beyond that is ours.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sandbox_nb import host
from sandbox_nb.background import run_blocking
from sandbox_nb.guest import cpio, tree
from sandbox_nb.options import Options
from sandbox_nb.vm import command
from sandbox_nb.vm.command import Fds, Spec

_MARK = b"!"


@contextlib.contextmanager
def bare_spec() -> Iterator[Spec]:
    """The machine a plain ``start()`` makes, with an init that does nothing."""
    options = Options()
    arch = host.guest_architecture(options)
    image = run_blocking(host.ensure_image(options))
    accelerator = run_blocking(host.choose_accelerator(options))
    with tempfile.TemporaryFile() as initrd:  # it has no name: nothing is left of a benchmark that is killed
        # The kernel unpacks one archive after the other; a later /init replaces an earlier one.
        initrd.write(image.initrd.read_bytes())
        initrd.write(cpio.archive([tree.file("init", _do_nothing(), mode=0o755)]))
        initrd.flush()
        yield Spec(
            arch=arch,
            qemu=host.find_qemu(arch),
            accel=accelerator.name,
            cpu=options.cpu_count,
            memory=options.memory_mib,
            kernel=image.kernel,
            initrd=Path(f"/proc/self/fd/{initrd.fileno()}"),
        )


def bare_boot(spec: Spec) -> float:
    """Seconds from the spawn of QEMU to the byte its init writes."""
    with contextlib.ExitStack() as stack:
        ram = os.memfd_create("bench")
        stack.callback(os.close, ram)
        os.ftruncate(ram, spec.memory << 20)
        qmp, console = socket.socketpair(), socket.socketpair()
        for end in (*qmp, *console):
            stack.enter_context(end)
        kernel, initrd = (stack.enter_context(path.open("rb")).fileno() for path in (spec.kernel, spec.initrd))
        fds = Fds(ram=ram, qmp=qmp[1].fileno(), console=console[1].fileno(), kernel=kernel, initrd=initrd)
        argv = [word for word in command.argv(spec, fds) if word != "-S"]
        began = time.perf_counter()
        process = subprocess.Popen(argv, pass_fds=(fds.ram, fds.qmp, fds.console, kernel, initrd))
        try:
            seen = b""
            while _MARK not in seen:
                seen += console[0].recv(4096)
            return time.perf_counter() - began
        finally:
            process.kill()
            process.wait()


def _do_nothing() -> bytes:
    """A static x86-64 program that writes the mark to its standard output and waits for ever."""
    code = (
        b"\xb8\x01\x00\x00\x00"  # mov eax, 1 (write)
        b"\xbf\x01\x00\x00\x00"  # mov edi, 1
        b"\x48\x8d\x35\x10\x00\x00\x00"  # lea rsi, [rip + mark]
        b"\xba\x01\x00\x00\x00"  # mov edx, 1
        b"\x0f\x05"  # syscall
        b"\xb8\x22\x00\x00\x00"  # again: mov eax, 34 (pause)
        b"\x0f\x05"  # syscall
        b"\xeb\xf7" + _MARK  # jmp again
    )
    base, offset = 0x400000, 64 + 56
    identity, kind, machine = b"\x7fELF\x02\x01\x01", 2, 62  # 64-bit little-endian; executable; x86-64
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", identity, kind, machine, 1, base + offset, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, offset + len(code), offset + len(code), 0x1000)
    return header + segment + code
