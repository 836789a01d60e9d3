"""Power/Off: every process is ended, the polite ones politely."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from sandbox_nb.guest.proto.process_pb2 import StartRequest
from sandbox_nb.ttrpc import Code, StatusError


async def test_an_idle_agent_answers_and_goes(agent):
    await agent.power.off()
    await agent.eventually(lambda: agent.child.poll() is not None)
    assert agent.child.returncode == 0


async def test_processes_are_asked_first_and_killed_if_they_do_not_listen(agent, tmp_path):
    polite = "trap 'echo asked > said; exit' TERM; : > ready1; while :; do sleep 0.01; done"
    deaf = "trap '' TERM; : > ready2; while :; do sleep 0.01; done"
    pids = [
        (await agent.start("sh", "-c", script, cwd=os.fsencode(tmp_path), pid=True))[1]
        for script in (polite, deaf)
    ]
    await agent.eventually(lambda: {"ready1", "ready2"} <= set(os.listdir(tmp_path)))
    await agent.power.off()
    await agent.eventually(lambda: agent.child.poll() is not None)
    assert (tmp_path / "said").read_text() == "asked\n"
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


async def test_nothing_starts_any_more(agent):
    await agent.start("sh", "-c", "trap '' TERM; while :; do sleep 0.01; done")
    await asyncio.sleep(0.1)
    await agent.power.off()
    with pytest.raises(StatusError) as info:
        await agent.processes.start(StartRequest(id="late", args=[b"true"]))
    assert info.value.code in (Code.FAILED_PRECONDITION, Code.UNAVAILABLE)
    await agent.eventually(lambda: agent.child.poll() is not None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGPWR, signal.SIGUSR1, signal.SIGUSR2])
async def test_the_power_button_is_the_same(agent, number):
    agent.child.send_signal(number)
    await agent.eventually(lambda: agent.child.poll() is not None)
    assert agent.child.returncode == 0
