"""An agent that lies: whatever it sends, each verb ends in an error of ours or can be left, and nothing swells."""

from __future__ import annotations

import asyncio
import gc
import resource
import tracemalloc
from pathlib import Path

import pytest

from reliability.liar import AGENTS, STREAMS, VERBS, agreeing, endless, lied_to, tried
from sandbox_nb import ProtocolError, ResourceExhausted, Sandbox, SandboxError, State, process, run
from sandbox_nb.files import service, transfer
from sandbox_nb.guest.proto import process_pb2

ROOM = 100 << 20
"""Bytes that a liar may cost at the most: inboxes of 16 MiB, buffers of sockets, frames of 4 MiB."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """With agents that never answer, and greedier than a host that keeps half a GiB of an output."""
    monkeypatch.setattr(process, "KILL_TIMEOUT", 0.05)
    monkeypatch.setattr(transfer, "GRACE", 0.1)
    monkeypatch.setattr(run, "MAX_OUTPUT", 8 << 20)
    monkeypatch.setattr(service, "READ_MAX", 8 << 20)
    monkeypatch.setattr(service, "LIST_MAX", 1 << 20)


def is_clear(error):
    """An error of ours, or the end of our patience."""
    return error is None or isinstance(error, (SandboxError, TimeoutError))


async def bounded(work):
    """Do ``work``, and measure what Python allocates meanwhile at the most."""
    gc.collect()
    tracemalloc.start()
    try:
        result = await work
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < ROOM, f"{peak >> 20} MiB"
    return result


@pytest.mark.parametrize("agent", AGENTS)
async def test_no_answer_does_harm(agent):
    async def all_verbs():
        for verb in VERBS:
            async with lied_to(AGENTS[agent]) as sandbox:
                error = await tried(sandbox, verb, patience=0.05)
                assert is_clear(error), (verb, repr(error))
                if sandbox.state is State.RUNNING:
                    await sandbox.stop(timeout=0.05)
                assert sandbox.state in (State.STOPPED, State.FAILED)

    await bounded(all_verbs())


@pytest.mark.parametrize("stream", STREAMS)
async def test_no_stream_does_harm(stream):
    async def all_verbs():
        for verb in ("run", "run with input", "read", "write", "listdir", "stream"):
            async with lied_to(agreeing(), STREAMS[stream]) as sandbox:
                error = await tried(sandbox, verb, patience=0.2)
                assert is_clear(error), (verb, repr(error))

    await bounded(all_verbs())


@pytest.mark.parametrize("stream", STREAMS)
async def test_no_stream_makes_a_copy_reach_out(stream, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "source").write_bytes(b"x" * (1 << 20))
    async with lied_to(agreeing(), STREAMS[stream]) as sandbox:
        for copy in (
            lambda: sandbox.copy_from("/etc", tmp_path / "folder/copy"),
            lambda: sandbox.copy_to(tmp_path / "source", "/x"),
        ):
            try:
                async with asyncio.timeout(0.3):
                    await copy()
            except (SandboxError, TimeoutError):
                pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "source"]


async def test_output_without_end_is_ended():
    async with lied_to(agreeing(), endless) as sandbox:
        with pytest.raises(ResourceExhausted, match="more than the 8 MiB that are kept.*stream=FUNCTION"):
            await bounded(sandbox.run("yes"))
        seen = 0

        def take(_, data):
            nonlocal seen
            seen += len(data)

        with pytest.raises(TimeoutError):
            await sandbox.run("yes", stream=take, capture_output=False, timeout=0.5)
        assert seen > 8 << 20, "what is not kept has no limit"


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([(7, b"x")], r"1 bytes of output 7; late are \[1, 2\]"),
        ([(1, b"x"), (1, b"")], "0 bytes of output 1"),
        ([(1, b"x")] * 2001, "in 2001 pieces; 2000 are the most"),
    ],
)
async def test_what_no_agent_says_of_an_output_is_refused(pieces, words):
    said = [process_pb2.Piece(output=output, data=data) for output, data in pieces]
    async with lied_to(agreeing(speaking=process_pb2.WaitResponse(said=said))) as sandbox:
        with pytest.raises(ProtocolError, match=words):
            await sandbox.run("true")


async def test_a_list_without_end_is_ended():
    async with lied_to(agreeing(), STREAMS["lists without end"]) as sandbox:
        with pytest.raises(ResourceExhausted, match="more than the 1 MiB"):
            await sandbox.listdir("/")


async def test_a_liar_that_breaks_the_protocol_costs_the_sandbox_its_life_and_says_so():
    async with lied_to(AGENTS["sends another's greeting"]) as sandbox:
        error = await tried(sandbox, "info", patience=2)
        assert isinstance(error, (SandboxError, TimeoutError))


def test_the_console_of_a_machine_that_floods_it_is_bounded():
    with Sandbox.started() as sandbox:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sandbox.run("timeout 3 cat /dev/zero > /dev/console; timeout 1 yes > /dev/console")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < ROOM >> 10
        assert Path(sandbox.state_dir, "console.log").stat().st_size <= 17 << 20
        assert len(sandbox.console) < 1 << 20
        assert sandbox.run("echo alive").stdout == "alive\n"
