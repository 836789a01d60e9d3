"""Setup/Configure, and what is legal before and after. What it changes is tested in a machine."""

from __future__ import annotations

import pytest

from sandbox_nb.guest.proto.process_pb2 import StartRequest
from sandbox_nb.guest.proto.setup_pb2 import ConfigureRequest, RootDisk
from sandbox_nb.guest.proto.setup_ttrpc import SetupClient
from sandbox_nb.ttrpc import Code, StatusError


async def test_no_process_starts_before_the_set_up(new_agent):
    with pytest.raises(StatusError) as info:
        await new_agent.processes.start(StartRequest(id="early", args=[b"true"]))
    assert info.value.code == Code.FAILED_PRECONDITION
    assert "Configure" in str(info.value)


async def test_it_is_done_once(new_agent):
    await new_agent.configure(hostname="sandbox", machine_id="0123456789abcdef" * 2, entropy=bytes(512))
    with pytest.raises(StatusError) as info:
        await new_agent.configure()
    assert info.value.code == Code.FAILED_PRECONDITION


async def test_a_rehearsal_lets_processes_run_until_the_set_up_that_counts(new_agent):
    setup = SetupClient(new_agent.client)
    await setup.rehearse(ConfigureRequest(hostname="rehearsal"))
    assert (await new_agent.run("true")).exit_code == 0
    await setup.rehearse(ConfigureRequest())
    with pytest.raises(StatusError, match="hostname"):
        await new_agent.configure(hostname="a b")
    await new_agent.configure(hostname="sandbox")
    assert (await new_agent.run("true")).exit_code == 0
    for again in (setup.rehearse(ConfigureRequest()), new_agent.configure()):
        with pytest.raises(StatusError, match="set up already"):
            await again


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"entropy": bytes(513)}, "512"),
        ({"hostname": "x" * 65}, "hostname"),
        ({"hostname": "a b"}, "hostname"),
        ({"machine_id": "0123"}, "machine id"),
        ({"machine_id": "0123456789ABCDEF" * 2}, "machine id"),
        ({"clock_realtime_ns": -1}, "clock_realtime_ns"),
        ({"init_args": [b"a\0b"]}, "NUL"),
        ({"root": RootDisk(serial="", type="erofs")}, "serial"),
        ({"root": RootDisk(serial="x" * 21, type="erofs")}, "serial"),
        ({"root": RootDisk(serial="root", type="ntfs")}, "erofs"),
    ],
)
async def test_a_wrong_value_is_refused_and_the_right_one_taken_afterwards(new_agent, fields, word):
    with pytest.raises(StatusError) as info:
        await new_agent.configure(**fields)
    assert info.value.code == Code.INVALID_ARGUMENT
    assert word in str(info.value)
    await new_agent.configure()
    assert (await new_agent.run("true")).exit_code == 0


async def test_known_init_args_are_obeyed_and_others_left_alone(new_agent):
    await new_agent.configure(init_args=[b"-dump-info", b"-debug", b"--their=own", b"\xff\n"])
    text = new_agent.log.read_text()
    assert "agent test" in text
    assert "command line:" in text
