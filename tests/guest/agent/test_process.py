"""Processes: how they start, what they see, how they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from pathlib import Path

import pytest

from sandbox_nb.guest.proto import process_pb2 as pb
from sandbox_nb.ttrpc import Code, StatusError

# The sanitizers do not bear a child in its parent's memory, so the way of the shipped agent is walked apart.
pytestmark = pytest.mark.parametrize("native_agent", ["sanitized", "shipped"], indirect=True)


@contextlib.contextmanager
def refused(code, *words):
    with pytest.raises(StatusError) as info:
        yield
    assert info.value.code == code, info.value
    for word in words:
        assert word in str(info.value)


async def test_output_errors_and_exit_status_arrive_apart(agent):
    result = await agent.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.out, result.err, result.exit_code, result.signal) == (b"out\n", b"err\n", 7, 0)


async def test_input_reaches_the_process_and_its_end_too(agent):
    data = os.urandom(3 << 20)
    result = await agent.run("cat", data=data)
    assert result.out == data
    assert result.exit_code == 0


async def test_large_output_arrives_whole(agent):
    result = await agent.run("seq", "1", "200000")
    assert result.out == b"".join(b"%d\n" % number for number in range(1, 200001))


async def test_a_process_ended_by_a_signal_says_which(agent):
    result = await agent.run("sh", "-c", "kill -TERM $$")
    assert (result.exit_code, result.signal) == (0, signal.SIGTERM)


async def test_a_start_waits_for_streams_that_come_behind_it(agent, tools):
    """The host sends both at once, and need not wait for the streams first."""
    out, err = b"late-out", b"late-err"
    starting = asyncio.create_task(
        agent.start("sh", "-c", "echo out; echo err >&2", stdout="stream://late-out", stderr="stream://late-err")
    )
    await asyncio.sleep(0.1)
    first, _ = await agent.greet(out)
    assert not starting.done()
    second, _ = await agent.greet(err)
    assert (await agent.wait(await starting)).exit_code == 0
    assert (await tools.read_all(first), await tools.read_all(second)) == (b"out\n", b"err\n")


async def test_a_wait_may_come_right_behind_the_start_it_is_for(agent):
    """Also while that waits for its stream; then the two go on together, in their order."""
    start = pb.StartRequest(id="p", args=[b"sh", b"-c", b"exit 7"], stdout="stream://late")
    starting = asyncio.create_task(agent.processes.start(start))
    waiting = asyncio.create_task(agent.wait("p"))
    await asyncio.sleep(0.05)
    assert not starting.done()
    assert not waiting.done()
    sock, _ = await agent.greet(b"late")
    with sock:
        assert (await starting).pid > 0
        assert (await waiting).exit_code == 7


async def test_a_wait_behind_a_start_that_fails_fails_too(agent):
    start = pb.StartRequest(id="p", args=[b"true"], user="nobody-of-this-name", stdout="stream://late")
    starting = asyncio.create_task(agent.processes.start(start))
    waiting = asyncio.create_task(agent.wait("p"))
    await asyncio.sleep(0.05)
    sock, _ = await agent.greet(b"late")
    with sock, pytest.raises(StatusError, match="nobody-of-this-name"):
        await starting
    with pytest.raises(StatusError, match="no process 'p'") as caught:
        await waiting
    assert caught.value.code == Code.NOT_FOUND


async def test_a_wait_for_what_no_start_names_waits_no_longer_than_a_start(agent):
    starting = asyncio.create_task(agent.start("true", stdout="stream://never"))
    with pytest.raises(StatusError, match="no process 'other'"):
        await agent.wait("other")
    with pytest.raises(StatusError, match="never"):
        await starting


async def test_starts_that_wait_for_streams_are_bounded_and_end_with_their_connection(agent):
    calls = [asyncio.create_task(agent.start("true", stdout=f"stream://never-{n}")) for n in range(200)]
    for ended in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(ended, StatusError)
        assert ended.code == Code.NOT_FOUND
    waits = asyncio.create_task(agent.start("true", stdout="stream://never"))
    await asyncio.sleep(0.1)
    await agent.client.aclose()
    with pytest.raises(StatusError):
        await waits
    await agent.connect()
    assert (await agent.run("echo", "on")).out == b"on\n"


async def test_without_streams_a_process_has_dev_null(agent):
    identity = await agent.start("sh", "-c", "cat; echo nothing; readlink /proc/self/fd/0 | grep -q /dev/null")
    assert (await agent.wait(identity)).exit_code == 0


async def test_a_command_that_does_not_exist_says_so_with_127(agent):
    result = await agent.run("no-such-command")
    assert (result.exit_code, result.err) == (127, b"sandbox: no-such-command: command not found\n")


async def test_a_command_that_cannot_be_run_says_so_with_126(agent, tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    result = await agent.run(str(script))
    assert result.exit_code == 126
    assert result.err == f"sandbox: {script}: Permission denied\n".encode()


async def test_the_environment_is_a_small_default_with_what_was_given_over_it(agent):
    result = await agent.run("env", env=[b"HOME=/elsewhere", b"EXTRA=a=b", b"RAW=\xff"])
    lines = dict(line.split(b"=", 1) for line in result.out.splitlines())
    assert lines[b"HOME"] == b"/elsewhere"
    assert lines[b"EXTRA"] == b"a=b"
    assert lines[b"RAW"] == b"\xff"
    assert lines[b"LANG"] == b"C.UTF-8"
    assert set(lines) == {b"PATH", b"HOME", b"USER", b"LOGNAME", b"SHELL", b"LANG", b"EXTRA", b"RAW"}


async def test_the_command_is_looked_up_in_the_path_that_was_given(agent, tmp_path):
    tool = tmp_path / "our-tool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    result = await agent.run("our-tool", env=[b"PATH=" + os.fsencode(tmp_path)])
    assert result.out == b"found\n"


async def test_cwd_is_where_it_was_asked_for(agent, tmp_path):
    result = await agent.run("pwd", cwd=os.fsencode(tmp_path))
    assert result.out == os.fsencode(tmp_path) + b"\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("user", "identity"),
    [
        ("nobody", "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)"),
        ("65534", "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)"),
        ("nobody:daemon", "uid=65534(nobody) gid=1(daemon) groups=1(daemon)"),
        ("4242:4243", "uid=4242 gid=4243 groups=4243"),
        ("4242", "uid=4242 gid=0(root) groups=0(root)"),
    ],
)
async def test_a_process_is_the_user_it_was_asked_to_be(agent, user, identity):
    result = await agent.run("id", user=user)
    assert result.out.decode().strip() == identity, result.err


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"args": []}, Code.INVALID_ARGUMENT, ["args is empty"]),
        ({"args": [b"a\0b"]}, Code.INVALID_ARGUMENT, ["NUL"]),
        ({"id": ""}, Code.INVALID_ARGUMENT, ["1 to 64"]),
        ({"id": "x" * 65}, Code.INVALID_ARGUMENT, ["1 to 64"]),
        ({"id": "with space"}, Code.INVALID_ARGUMENT, ["printable"]),
        ({"env": [b"NOVALUE"]}, Code.INVALID_ARGUMENT, ["KEY=VALUE"]),
        ({"env": [b"=x"]}, Code.INVALID_ARGUMENT, ["KEY=VALUE"]),
        ({"cwd": b"relative"}, Code.INVALID_ARGUMENT, ["relative", "absolute"]),
        ({"cwd": b"/not/there"}, Code.NOT_FOUND, ["/not/there"]),
        ({"cwd": b"/etc/passwd"}, Code.NOT_FOUND, ["/etc/passwd"]),
        ({"user": "stranger"}, Code.NOT_FOUND, ["stranger"]),
        ({"user": "root:strangers"}, Code.NOT_FOUND, ["strangers"]),
        ({"user": "4294967295"}, Code.NOT_FOUND, ["4294967295"]),
        ({"stdout": "stream://never-opened"}, Code.NOT_FOUND, ["never-opened"]),
        ({"stdin": "file:///etc/passwd"}, Code.NOT_FOUND, ["stream://ID"]),
        ({"tty": pb.WindowSize(rows=1, columns=1)}, Code.INVALID_ARGUMENT, ["tty"]),
        ({"tty": pb.WindowSize(rows=70000, columns=1)}, Code.INVALID_ARGUMENT, ["65535"]),
    ],
)
async def test_a_wrong_request_is_refused_by_name_and_starts_nothing(agent, fields, code, words):
    request = pb.StartRequest(**({"id": "wrong", "args": [b"true"]} | fields))
    await agent.run("true")
    before = agent.descriptors()
    with refused(code, *words):
        await agent.processes.start(request)
    with refused(Code.NOT_FOUND):
        await agent.wait("wrong")
    assert agent.descriptors() == before


async def test_a_refused_start_leaves_its_streams_to_be_claimed(agent, tools):
    name, sock = await agent.stream()
    with refused(Code.NOT_FOUND):
        await agent.start("echo", "hi", stdout=name, user="stranger")
    await agent.wait(await agent.start("echo", "hi", stdout=name))
    assert await tools.read_all(sock) == b"hi\n"


async def test_an_id_is_taken_until_its_end_was_told(agent):
    identity = await agent.start("true")
    with refused(Code.ALREADY_EXISTS, identity):
        await agent.processes.start(pb.StartRequest(id=identity, args=[b"true"]))
    assert (await agent.wait(identity)).exit_code == 0
    with refused(Code.NOT_FOUND, identity):
        await agent.wait(identity)


async def test_several_waits_are_all_answered(agent):
    identity = await agent.start("sh", "-c", "sleep 0.2; exit 3")
    ends = await asyncio.gather(*(agent.wait(identity) for _ in range(5)))
    assert [end.exit_code for end in ends] == [3] * 5


async def test_a_wait_that_ran_out_of_time_takes_nothing_with_it(agent):
    identity = await agent.start("sleep", "60")
    with refused(Code.DEADLINE_EXCEEDED):
        await agent.processes.wait(pb.WaitRequest(id=identity), timeout=0.05)
    await asyncio.sleep(0.1)
    await agent.kill(identity)
    assert (await agent.wait(identity)).signal == signal.SIGKILL


async def test_kill_reaches_the_process_alone_or_all_it_started(agent):
    script = "trap 'exit 5' TERM; sleep 61 & echo $!; wait"
    name, sock = await agent.stream()
    identity = await agent.start("sh", "-c", script, stdout=name)
    grandchild = int(await asyncio.get_running_loop().sock_recv(sock, 100))
    await agent.kill(identity, signal.SIGTERM)
    assert (await agent.wait(identity)).exit_code == 5
    os.kill(grandchild, 0)
    os.kill(grandchild, signal.SIGKILL)


async def test_nobody_escapes_from_kill_all_by_a_session_of_its_own(agent):
    if agent.cgroup is None:
        pytest.skip("no writable cgroup v2 on this host")
    name, sock = await agent.stream()
    identity = await agent.start("sh", "-c", "setsid sleep 62 & echo $!; wait", stdout=name)
    await asyncio.get_running_loop().sock_recv(sock, 100)
    pids = list((await agent.processes.pids(pb.PidsRequest(id=identity))).pids)
    assert len(pids) >= 2
    await agent.kill(identity, everything=True)
    assert (await agent.wait(identity)).signal == signal.SIGKILL
    await agent.eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


async def test_kill_all_works_after_the_process_itself_has_ended(agent, tools):
    if agent.cgroup is None:
        pytest.skip("no writable cgroup v2 on this host")
    name, sock = await agent.stream()
    identity, pid = await agent.start("sh", "-c", "setsid sleep 63 & exit 0", stdout=name, pid=True)
    await agent.eventually(lambda: not os.path.exists(f"/proc/{pid}"))
    await agent.kill(identity, everything=True)
    assert await tools.read_all(sock) == b""  # the sleep held the pipe open
    assert (await agent.wait(identity)).exit_code == 0


async def test_kill_of_what_has_ended_or_never_was_is_not_found(agent):
    identity, pid = await agent.start("true", pid=True)
    await agent.eventually(lambda: not os.path.exists(f"/proc/{pid}"))
    with refused(Code.NOT_FOUND, identity):
        await agent.kill(identity, signal.SIGTERM)
    with refused(Code.NOT_FOUND, "nobody"):
        await agent.kill("nobody", signal.SIGTERM)
    for number in (0, 65, 2**32 - 1):
        with refused(Code.INVALID_ARGUMENT, str(number)):
            await agent.kill(identity, number)


async def test_a_process_has_no_fds_and_no_blocked_signals_of_the_agents(agent):
    result = await agent.run("sh", "-c", "ls /proc/self/fd; grep -E 'Sig(Blk|Ign)' /proc/self/status")
    fds, statuses = result.out.split(b"SigBlk:")
    assert fds.split() == [b"0", b"1", b"2", b"3"]  # 3 is the folder that ls reads
    blocked, ignored = (int(part, 16) for part in statuses.replace(b"SigIgn:", b"").split())
    assert blocked == 0
    # On a host, what whoever started the tests ignores (make, a CI runner) is inherited; a guest has nobody.
    own = re.search(r"SigIgn:\s*(\w+)", Path("/proc/self/status").read_text())
    assert ignored & ~int(own[1], 16) == 0


async def test_cgroups_of_the_dead_are_removed_but_for_one(agent):
    if agent.cgroup is None:
        pytest.skip("no writable cgroup v2 on this host")
    name, _ = await agent.stream()
    identity, _ = await agent.start("sh", "-c", "sleep 0.5 & exit 0", stdout=name, pid=True)
    await agent.wait(identity)
    await agent.run("true")

    def populated() -> list[bool]:
        found = []
        for folder in agent.cgroup.glob("*/"):
            with contextlib.suppress(OSError):  # removed since it was listed: ENOENT, or ENODEV
                found.append("populated 1" in (folder / "cgroup.events").read_text())
        return found

    assert len(populated()) >= 2
    await agent.eventually(lambda: populated() == [False])


async def test_every_process_has_a_cgroup_that_nobody_had_before(agent):
    if agent.cgroup is None:
        pytest.skip("no writable cgroup v2 on this host")

    async def used() -> str:
        lines = (await agent.run("cat", "/proc/self/cgroup")).out.decode().splitlines()
        (unified,) = (line for line in lines if line.startswith("0::"))
        return unified

    assert len({await used() for _ in range(4)}) == 4


async def test_thousands_of_processes_leave_nothing_open(agent):
    before = None
    for round_ in range(6):
        await asyncio.gather(*(agent.run("echo", str(number)) for number in range(16)))
        if round_ == 0:
            before = agent.descriptors()
    await agent.eventually(lambda: agent.descriptors() <= before)


async def test_more_processes_than_may_run_are_refused_and_room_comes_back(agent):
    started = []
    with refused(Code.RESOURCE_EXHAUSTED, "512"):
        for _ in range(513):
            started.append(await agent.start("sleep", "60"))  # noqa: PERF401 - some of them start
    assert len(started) == 512
    for identity in started:
        await agent.kill(identity)
    await asyncio.gather(*(agent.wait(identity) for identity in started))
    assert (await agent.run("true")).exit_code == 0


async def test_results_nobody_waits_for_are_kept_up_to_a_bound(agent):
    identities = []
    for _ in range(1100):  # 1024 results are kept, and on a busy machine the last have not ended yet
        identities.append(await agent.start("true"))  # noqa: PERF401 - one after the other
    await agent.run("true")
    with refused(Code.NOT_FOUND):
        await agent.wait(identities[0])
    assert (await agent.wait(identities[-1])).exit_code == 0
