"""How long a machine takes to be ready, and a command to run in it.

A cold start is held against a bare boot: the same QEMU, kernel, command line, devices, memory and modules, with an
init that does nothing but write one byte to the console. What a start takes beyond that is ours.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sandbox_nb import host, standby
from sandbox_nb.bench import Row
from sandbox_nb.blocking import Sandbox, run_blocking
from sandbox_nb.guest import cpio, tree
from sandbox_nb.options import Options
from sandbox_nb.vm import command
from sandbox_nb.vm.command import Fds, Spec

COLD_ROUNDS = 7
WARM_ROUNDS = 20
STANDBY_ROUNDS = 20
STANDBY_TIMEOUT = 30.0
CALLS = 100

_MARK = b"!"

NAMES = (
    "cold_ready_s",
    "bare_boot_s",
    "cold_over_bare",
    "warm_ready_s",
    "warm_exec_s",
    "standby_ready_s",
    "eight_over_one",
    "exec_ms",
    "ping_ms",
)


def rows() -> dict[str, Row]:
    """Measure cold starts and bare boots in turn; then warm starts; those that find a machine; calls on one."""
    cold, bare = [], []
    with _bare_spec() as spec:
        for _ in range(COLD_ROUNDS):
            bare.append(_bare_boot(spec))
            cold.append(_start(warm=False)[0])
    _start(warm=True)  # makes the template when there is none
    warm = [_start(warm=True) for _ in range(WARM_ROUNDS)]
    return {
        "cold_ready_s": Row.of(cold, "s"),
        "bare_boot_s": Row.of(bare, "s"),
        "cold_over_bare": Row.of([ours / theirs for ours, theirs in zip(cold, bare, strict=True)], "ratio"),
        "warm_ready_s": Row.of([ready for ready, _ in warm], "s"),
        "warm_exec_s": Row.of([executed for _, executed in warm], "s"),
        "standby_ready_s": Row.of(_standby(), "s"),
        "eight_over_one": Row.of([_at_once(8) / _start(warm=True)[0] for _ in range(COLD_ROUNDS)], "ratio"),
        **_calls(),
    }


def _standby() -> list[float]:
    """Seconds to ready with a machine standing by, each time after it has had the time to be made."""
    samples: list[float] = []
    with Sandbox.started(standby=1):
        while len(samples) < STANDBY_ROUNDS:
            deadline = time.monotonic() + STANDBY_TIMEOUT
            while not standby.ready() and time.monotonic() < deadline:
                time.sleep(0.05)
            samples.append(_start(standby=1)[0])
    return samples


def _at_once(number: int) -> float:
    """Seconds until ``number`` machines, started at the same time, are all ready."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(number) as pool:
        sandboxes = [stack.enter_context(Sandbox()) for _ in range(number)]
        began = time.perf_counter()
        for _ in pool.map(lambda sandbox: (sandbox.start(), sandbox.info()), sandboxes):
            pass
        return time.perf_counter() - began


def _start(**options: Any) -> tuple[float, float]:
    """Seconds from the call of ``start`` to the first answer of the agent, and to the first command's result."""
    with Sandbox() as sandbox:
        began = time.perf_counter()
        sandbox.start(**options)
        sandbox.info()
        ready = time.perf_counter() - began
        sandbox.run(["true"])
        return ready, time.perf_counter() - began


def _calls() -> dict[str, Row]:
    with Sandbox.started() as sandbox:
        sandbox.run(["true"])
        return {
            "exec_ms": Row.of([_milliseconds(lambda: sandbox.run(["true"])) for _ in range(CALLS)], "ms"),
            "ping_ms": Row.of([_milliseconds(sandbox.info) for _ in range(CALLS)], "ms"),
        }


def _milliseconds(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


@contextlib.contextmanager
def _bare_spec() -> Iterator[Spec]:
    """The machine a plain ``start()`` makes, with an init that does nothing."""
    options = Options()
    arch = host.guest_architecture(options)
    image = run_blocking(host.ensure_image(options))
    accelerator = run_blocking(host.choose_accelerator(options))
    with tempfile.NamedTemporaryFile(prefix="sandbox_nb-bench-") as initrd:
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
            initrd=Path(initrd.name),
        )


def _bare_boot(spec: Spec) -> float:
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
