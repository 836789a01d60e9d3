"""Stats/Get: how busy the machine is, against what its own /proc says."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from sandbox_nb.guest.proto.stats_pb2 import GetRequest
from sandbox_nb.guest.proto.stats_ttrpc import StatsClient
from sandbox_nb.ttrpc import Code, StatusError


async def get(agent, **fields):
    return await StatsClient(agent.client).get(GetRequest(**fields))


async def test_counters_are_those_of_proc_and_grow(agent):
    before = await get(agent)
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    assert before.memory_total == page * pages
    assert 0 < before.memory_available <= before.memory_total
    assert 0 < before.cpu_busy <= before.cpu_total
    await agent.run("sh", "-c", "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done")
    after = await get(agent)
    assert after.uptime_ns > before.uptime_ns
    assert after.cpu_busy > before.cpu_busy
    assert after.cpu_total - before.cpu_total >= after.cpu_busy - before.cpu_busy
    assert not after.processes


async def test_whole_disks_and_interfaces_are_listed_and_no_loopback(agent):
    found = await get(agent)
    disks = [name for name in os.listdir("/sys/block") if not name.startswith(("loop", "ram"))]
    assert sorted(disk.name for disk in found.disks) == sorted(disks)
    own = f"/proc/{agent.child.pid}/net/dev"
    with open(own) as lines:
        interfaces = {line.partition(":")[0].strip() for line in lines if ":" in line} - {"lo"}
    assert {network.name for network in found.networks} == interfaces


async def test_a_process_is_listed_with_its_command_in_one_line_and_the_agent_is_not(agent):
    identity, pid = await agent.start("sh", "-c", "sleep 987\n#\tlast line", pid=True)
    await agent.eventually(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes())
    found = {process.pid: process for process in (await get(agent, processes=True)).processes}
    assert agent.child.pid not in found
    process = found[pid]
    assert process.parent == agent.child.pid
    assert process.state in {"S", "R", "D"}
    assert process.resident > 0
    assert "sleep 987" in process.command
    assert "\n" not in process.command
    assert "\t" not in process.command
    await agent.kill(identity, everything=True)


async def test_a_name_with_a_parenthesis_and_a_long_command_do_not_mislead(agent):
    name = "exec -a ') R 1 1' sleep 987; exit"
    identity, pid = await agent.start("bash", "-c", name, "x" * 500, pid=True)
    await asyncio.sleep(0.1)
    found = {process.pid: process for process in (await get(agent, processes=True)).processes}
    assert found[pid].parent == agent.child.pid
    assert len(found[pid].command) < 256
    await agent.kill(identity, everything=True)


async def test_a_list_too_long_for_an_answer_is_cut_and_the_answer_whole(agent):
    """A job's result has 64 KiB; one that was longer would be no message any more."""
    many = 250
    script = f"name=$(printf '%0240d' 1); for i in $(seq {many}); do (exec -a $name sleep 987) & done; wait"
    identity = await agent.start("bash", "-c", script)
    for _ in range(100):
        found = await get(agent, processes=True)
        if (size := found.ByteSize()) > 60 * 1024:
            break
        await asyncio.sleep(0.1)
    assert 60 * 1024 < size < 64 * 1024
    assert found.memory_total
    assert sum("0" * 200 in process.command for process in found.processes) < many
    await agent.kill(identity, everything=True)


async def test_it_needs_the_set_up_and_a_message(new_agent):
    with pytest.raises(StatusError) as info:
        await get(new_agent)
    assert info.value.code == Code.FAILED_PRECONDITION
