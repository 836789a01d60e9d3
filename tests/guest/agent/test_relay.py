"""Relays: how many there may be, and which output is sent at once, which gathers.

The agent is one that lets it gather for an hour, and has room for sixteen relays.
"""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from sandbox_nb.guest.proto import process_pb2 as pb
from sandbox_nb.ttrpc import Code, StatusError

ROOM = 16


@pytest.fixture(scope="module")
def native_agent(tmp_path_factory, agent_sources, tools):
    out = tmp_path_factory.mktemp("patient") / "agent"
    flags = ["-DGATHER_NS=(3600*NS_PER_S)", f"-DMAX_RELAYS={ROOM}"]
    return tools.compile_native(out, *agent_sources.glob("*.c"), flags=flags)


async def receive(sock):
    return await asyncio.get_running_loop().sock_recv(sock, 65536)


async def say(sock, data):
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def nothing_comes(sock):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(receive(sock), 0.5)


async def test_room_is_kept_for_streams_that_may_be_asked_for(agent):
    """Else one would be opened, and what it should bring lost."""

    async def begin(number):
        return await agent.start("sleep", "600", stdout=f"late://{number}-1", stderr=f"late://{number}-2")

    identities = [await begin(number) for number in range(ROOM // 2)]
    for start in (begin(ROOM), agent.start("true", stdout=(await agent.stream())[0])):
        with pytest.raises(StatusError, match="streams are in use, or kept for commands; end some first") as info:
            await start
        assert info.value.code == Code.RESOURCE_EXHAUSTED
    for identity in identities:
        await agent.kill(identity)
        await agent.wait(identity)
    assert (await agent.run("echo", "on")).out == b"on\n"


@pytest.fixture(params=["pipes", "terminal"])
def start(agent, request):
    """Start a shell that runs a script; return its id and the host's ends of its stdin and stdout."""

    async def with_pipes(script):
        (stdin, feed), (stdout, out) = await agent.stream(), await agent.stream()
        return await agent.start("sh", "-c", script, stdin=stdin, stdout=stdout), feed, out

    async def with_terminal(script):
        name, sock = await agent.stream()
        size = pb.WindowSize(rows=24, columns=80)
        script = f"stty -echo; {script}"
        return await agent.start("sh", "-c", script, stdin=name, stdout=name, tty=size), sock, sock

    return with_pipes if request.param == "pipes" else with_terminal


@pytest_asyncio.fixture
async def gathering(start, agent, tmp_path):
    """What ``start`` returns, of a process whose first word has come and which has said a second, "b".

    It says nothing to what it is told.
    """
    go, said = tmp_path / "go", tmp_path / "said"
    wait = f"until [ -e {go} ]; do sleep 0.05; done"
    started = await start(f"printf a; {wait}; printf b; : > {said}; while read line; do :; done")
    assert await receive(started[-1]) == b"a"
    go.touch()
    await agent.eventually(said.exists)
    return started


async def test_little_behind_little_gathers(gathering):
    _, _, out = gathering
    await nothing_comes(out)


async def test_last_words_are_sent_at_once(gathering, agent, tools):
    identity, _, out = gathering
    await agent.kill(identity)
    assert await tools.read_all(out) == b"b"


async def test_an_answer_is_sent_at_once(start):
    _, feed, out = await start("printf a; while read line; do printf $line; done")
    assert await receive(out) == b"a"
    for number in range(5):
        await say(feed, b"%d\n" % number)
        assert await receive(out) == b"%d" % number


async def test_what_has_gathered_is_sent_when_the_host_speaks(gathering):
    _, feed, out = gathering
    await say(feed, b"well?\n")
    assert await receive(out) == b"b"


async def test_much_never_gathers(agent, tools):
    stdout, out = await agent.stream()
    await agent.start("sh", "-c", "dd if=/dev/zero bs=4096 count=500; exec sleep 1000", stdout=stdout)
    assert await tools.read_exactly(out, 500 * 4096) == bytes(500 * 4096)


async def test_a_relay_may_end_while_its_output_gathers(gathering, agent):
    identity, feed, out = gathering
    feed.close()
    out.close()
    assert (await agent.wait(identity)).exit_code in (0, 128 + 1)
