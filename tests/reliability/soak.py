"""Harm done at random, counted: ``python tests/reliability/soak.py --seconds 1200 --seed 1``.

Two workers start and stop machines, check bytes, kill processes at random moments, give bad inputs and lie as a
guest. Nothing may hang, be lost or be left. Prints a table, and exits with 1 when it has a number that must be 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import hashlib
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import alive, descendants

from reliability import liar
from sandbox_nb import NIC, AsyncSandbox, Disk, Filesystem, SandboxError, State, limits, process, rundir
from sandbox_nb.files import transfer

PROMISE = 5.0
"""Seconds within which everything that waits on what failed has ended."""

START_PROMISE = 60.0
"""Seconds for a start in which something was killed: it may boot instead of being restored."""

GONE = 2.0
"""Seconds until processes are gone whose owner is."""

BAD = [
    {"cpu": 0, "memory": 256},
    {"cpu": 1},
    {"cpu": 1, "memory": 1},
    {"cpu": 1 << 40, "memory": 256},
    {"memory": "much", "cpu": 1},
    {"image": ""},
    {"image": "nonesuch"},
    {"accel": "magic"},
    {"network": 7},
    {"no_such_option": 1},
    {"state_dir": "/proc/self/no"},
    {"kernel": "/no/such/kernel"},
    {"disks": [Disk("d", "/no/such/disk")]},
    {"disks": ["text"]},
    {"filesystems": [Filesystem("f", "/no/such/folder")]},
    {"nics": [NIC("/no/such/socket")]},
    {"idle_timeout": -1},
    {"max_lifetime": "long"},
    {"init_args": ["a\0b"]},
    {"transport": "pigeon"},
    {"standby": 9999},
]

OWNER = """
from sandbox_nb import Sandbox
sb = Sandbox.started()
held = sb.popen("exec sh", tty=(24, 80))
while True:
    sb.run("head -c 100000 /dev/urandom | sha256sum")
"""


@dataclass
class Tally:
    """What was done, and what went wrong."""

    done: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    slowest: float = 0.0
    samples: list[tuple[int, int]] = field(default_factory=list)
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held over a start, so that who kills what has just begun kills none of another's."""

    def complain(self, what: str, detail: object) -> None:
        """Count what must not be, and keep the words."""
        self.wrong[what] += 1
        self.notes.append(f"{what}: {detail}"[:600])


class Soak:
    """One worker: acts until the time is over."""

    def __init__(self, seed: int, tally: Tally, folder: Path) -> None:
        self.random = random.Random(seed)
        self.tally = tally
        self.folder = folder

    async def act(self) -> None:
        """Do one thing at random."""
        actions = [
            (self.start_and_stop, 8),
            (self.check_bytes, 2),
            (self.kill_under_calls, 6),
            (self.kill_at_start, 0.5),  # it costs a template
            (self.kill_owner, 3),
            (self.bad_input, 4),
            (self.lie, 6),
        ]
        (action,) = self.random.choices(*zip(*actions, strict=True))
        try:
            await action()
        except Exception as error:  # counted, never the end of it
            self.tally.complain("unexpected errors", f"{action.__name__}: {error!r}")

    async def start_and_stop(self) -> None:
        """A machine comes, says something, and goes."""
        async with self.machine() as sandbox:
            word = str(self.random.random())
            if (await sandbox.run(["echo", word])).stdout != f"{word}\n":
                self.tally.complain("bytes lost", "echo")

    async def check_bytes(self) -> None:
        """What goes in comes out: through pipes, as a file, as a tree."""
        data = self.random.randbytes(self.random.randrange(1, 8 << 20))
        digest = hashlib.sha256(data).digest()
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            Path(name, "in").mkdir()
            Path(name, "in/file").write_bytes(data)
            async with self.machine() as sandbox:
                piped = (await sandbox.run("cat", input=data, text=False)).stdout
                await sandbox.write("/root/file", data)
                read = await sandbox.read("/root/file")
                await sandbox.copy_to(Path(name, "in"), "/root/tree")
                await sandbox.copy_from("/root/tree", Path(name, "out"))
                copied = Path(name, "out/file").read_bytes()
        for how, came in (("pipes", piped), ("a file", read), ("a tree", copied)):
            self.tally.done["bytes checked"] += 2 * len(data)
            if hashlib.sha256(came).digest() != digest:
                self.tally.complain("bytes lost", f"{how}: {len(data)} went, {len(came)} came")

    async def kill_under_calls(self) -> None:
        """Kill a process of a machine while calls are under way; all of them must end, and the next start work."""
        async with self.machine() as sandbox:
            pids = self.pids(sandbox)
            calls = [
                asyncio.ensure_future(sandbox.run("sleep 600")),
                asyncio.ensure_future(sandbox.run("cat /dev/zero", capture_output=False)),
                asyncio.ensure_future(liar.first_events(sandbox)),
                asyncio.ensure_future(sandbox.copy_to("/usr/include", "/root/copy")),
            ]
            await asyncio.sleep(self.random.random() * 0.5)
            what = self.random.choice(list(pids))
            os.kill(pids[what], self.random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV]))
            self.tally.done[f"kills: {what}"] += 1
            await self.must_end(what, calls)
            if sandbox.state is not State.FAILED:
                self.tally.complain("failures not noticed", f"{what}: {sandbox.state}")
            for name, call in zip(("run", "output", "events", "copy"), calls, strict=True):
                if call.done() and not isinstance(call.exception(), SandboxError):
                    self.tally.complain("unexpected errors", f"{what} under {name}: {call.exception()!r}")
            if self.random.random() < 0.3:
                async with self.tally.starting:
                    await sandbox.start()
                self.tally.done["starts"] += 1
                await sandbox.run("true", check=True)
        await self.must_be_gone(what, set(pids.values()))

    async def kill_at_start(self) -> None:
        """Kill whichever process is there while a machine starts."""
        async with self.tally.starting:
            await self.kill_one_that_starts()

    async def kill_one_that_starts(self) -> None:
        sandbox = AsyncSandbox()
        before = descendants(os.getpid())
        start = asyncio.ensure_future(sandbox.start())
        await asyncio.sleep(self.random.random() * 0.4)
        new = sorted(descendants(os.getpid()) - before)
        if new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.random.choice(new), signal.SIGKILL)
                self.tally.done["kills: while starting"] += 1
        _, pending = await asyncio.wait({start}, timeout=START_PROMISE)
        if pending:
            self.tally.complain("hangs", "a start")
            start.cancel()
        error = (await asyncio.gather(start, return_exceptions=True))[0]
        if error is not None and not isinstance(error, SandboxError):
            self.tally.complain("unexpected errors", f"start: {error!r}")
        self.tally.done["starts"] += 1
        if sandbox.state in (State.RUNNING, State.FAILED):
            await sandbox.stop()
            self.tally.done["stops"] += 1

    async def kill_owner(self) -> None:
        """Kill a process that owns a machine, at any moment of its life."""
        owner = await asyncio.create_subprocess_exec(sys.executable, "-c", OWNER)
        seen: set[int] = set()
        deadline = time.monotonic() + self.random.random() * 3
        while time.monotonic() < deadline and owner.returncode is None:
            with contextlib.suppress(FileNotFoundError):
                seen |= descendants(owner.pid)
            await asyncio.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):  # a worker that kills what starts may have been faster
            owner.kill()
        # What was started between the last look and the kill.
        with contextlib.suppress(FileNotFoundError):
            seen |= descendants(owner.pid)
        await owner.wait()
        self.tally.done["kills: owner"] += 1
        await self.must_be_gone("owner", seen)

    async def bad_input(self) -> None:
        """What cannot be meant is refused, and nothing is there."""
        sandbox = AsyncSandbox()
        wrong = self.random.choice(BAD)
        self.tally.done["bad inputs"] += 1
        try:
            await sandbox.start(**wrong)
        except SandboxError:
            pass
        except Exception as error:
            self.tally.complain("unexpected errors", f"{wrong}: {error!r}")
        else:
            self.tally.complain("bad inputs taken", wrong)
            await sandbox.stop()

    async def lie(self) -> None:
        """Be a guest that lies."""
        seed = self.random.randrange(1 << 30)
        agents = {**liar.AGENTS, "random": liar.random_bytes(seed), "changed": liar.mutating(seed)}
        agent, verb = self.random.choice(list(agents)), self.random.choice(list(liar.VERBS))
        serve = liar.STREAMS[self.random.choice(list(liar.STREAMS))]
        began = time.monotonic()
        async with liar.lied_to(agents[agent], serve) as sandbox:
            error = await liar.tried(sandbox, verb, patience=0.2)
        self.tally.done["hostile guests"] += 1
        if error is not None and not isinstance(error, (SandboxError, TimeoutError)):
            self.tally.complain("unexpected errors", f"{agent} at {verb}: {error!r}")
        if time.monotonic() - began > PROMISE:
            self.tally.complain("hangs", f"{agent} at {verb}: {time.monotonic() - began:.1f} s")

    @contextlib.asynccontextmanager
    async def machine(self):
        """A machine, whose stop is counted, and whose processes must be gone after it."""
        sandbox = AsyncSandbox()
        async with self.tally.starting:
            await sandbox.start()
        self.tally.done["starts"] += 1
        try:
            yield sandbox
        finally:
            if sandbox.state in (State.RUNNING, State.FAILED):
                pids = set(self.pids(sandbox).values())
                began = time.monotonic()
                await sandbox.stop()
                if time.monotonic() - began > PROMISE:
                    self.tally.complain("hangs", f"a stop: {time.monotonic() - began:.1f} s")
                self.tally.done["stops"] += 1
                await self.must_be_gone("stop", pids)

    def pids(self, sandbox: AsyncSandbox) -> dict[str, int]:
        """The processes of a machine that are there."""
        running = sandbox._life.running
        found = {}
        for name, child in (("QEMU", running.machine.child), ("vsock device", running.link.device)):
            if child.returncode is None:
                found[f"guard of {name}"] = child.pid
                with contextlib.suppress(FileNotFoundError):
                    found |= dict.fromkeys([name], *descendants(child.pid))
        return found

    async def must_end(self, what: str, calls: list[asyncio.Future[object]]) -> None:
        began = time.monotonic()
        _, pending = await asyncio.wait(calls, timeout=PROMISE)
        self.tally.slowest = max(self.tally.slowest, time.monotonic() - began)
        self.tally.done["calls under a kill"] += len(calls)
        for call in pending:
            self.tally.complain("hangs", f"{what} was killed, and this waits: {call!r}")
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def must_be_gone(self, what: str, pids: set[int]) -> None:
        deadline = time.monotonic() + GONE
        while (left := alive(pids)) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for pid in left:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[:150]
            self.tally.complain("orphans", f"after {what}: {pid} {command!r}")


def resident() -> int:
    """KiB of this process in memory."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


async def soak(seconds: float, seed: int) -> Tally:
    """Act for so long; return what was done and what went wrong."""
    process.KILL_TIMEOUT, transfer.GRACE = 0.5, 0.5  # agents that never answer are met all the time
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        workers = [Soak(seed * 1000 + number, tally, Path(name)) for number in range(2)]
        for warm_up in (
            workers[0].check_bytes,
            workers[0].lie,
            workers[0].kill_under_calls,
            workers[0].kill_owner,
        ):
            await warm_up()  # what is imported and cached once
        gc.collect()
        files, base = len(os.listdir("/proc/self/fd")), resident()
        deadline = time.monotonic() + seconds

        async def work(worker: Soak) -> None:
            while time.monotonic() < deadline:
                await worker.act()
                tally.samples.append((int(seconds - deadline + time.monotonic()), resident()))

        await asyncio.gather(*map(work, workers))
        gc.collect()
        await asyncio.sleep(GONE)
        tally.samples.insert(0, (0, base))
        left = descendants(os.getpid())
        if left:
            tally.complain("orphans", f"at the end: {left}")
        tally.wrong["descriptors leaked"] += max(0, len(os.listdir("/proc/self/fd")) - files)
        mine = [path for path in rundir.base().iterdir() if path.name.startswith(f"{os.getpid()}-")]
        tally.wrong["files left"] += len(mine) + len(os.listdir(name))
        if limits._machines:
            tally.complain("machines miscounted", limits._machines)
    return tally


MUST_BE_NONE = (
    *("orphans", "hangs", "bytes lost", "descriptors leaked", "files left"),
    *("failures not noticed", "bad inputs taken", "unexpected errors", "machines miscounted"),
)


def table(tally: Tally, seconds: float, seed: int) -> str:
    """The table of docs/reliability.md."""
    done = tally.done
    kills = {name.removeprefix("kills: "): count for name, count in done.items() if name.startswith("kills: ")}
    by_kind = ", ".join(f"{count} {name}" for name, count in sorted(kills.items()))
    tenth = max(1, len(tally.samples) // 10)
    early, late = (
        sorted(kib for _, kib in part)[tenth // 2] for part in (tally.samples[:tenth], tally.samples[-tenth:])
    )
    rows = [
        ("starts / stops", f"{done['starts']} / {done['stops']}"),
        ("processes killed (-9, some by SIGSEGV)", f"{sum(kills.values())}: {by_kind}"),
        ("calls under way at a kill, all ended", done["calls under a kill"]),
        ("the slowest of them", f"{tally.slowest:.2f} s"),
        ("bad inputs", done["bad inputs"]),
        ("hostile guests", done["hostile guests"]),
        ("bytes checked", f"{done['bytes checked'] / 1e9:.2f} GB"),
        *((f"**{name}**", f"**{tally.wrong[name]}**") for name in MUST_BE_NONE),
        ("memory of the process, first and last tenth", f"{early / 1024:.0f} and {late / 1024:.0f} MiB"),
    ]
    about = f"{seconds:g} s, seed {seed}, {os.cpu_count()} processors, Python {platform.python_version()}"
    return "\n".join([f"| {about} | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def main() -> int:
    """Soak, print, and say whether all was well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()
    tally = asyncio.run(soak(arguments.seconds, arguments.seed))
    print(table(tally, arguments.seconds, arguments.seed))
    for note in tally.notes:
        print(note, file=sys.stderr)
    if arguments.json:
        arguments.json.write_text(json.dumps([tally.done, tally.wrong, tally.notes, tally.samples]))
    return int(any(tally.wrong[name] for name in MUST_BE_NONE))


if __name__ == "__main__":
    sys.exit(main())
