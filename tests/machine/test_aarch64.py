"""A machine of another architecture than the host's: emulated, and otherwise the same in every respect."""

from __future__ import annotations

import platform
import shutil

import pytest

from sandbox_nb import Disk, Filesystem, Sandbox, binaries
from sandbox_nb.errors import FailedPrecondition, NotFound, Unavailable
from sandbox_nb.guest import image

if platform.machine() == "aarch64":
    pytest.skip("aarch64 is no other architecture here", allow_module_level=True)
if shutil.which("qemu-system-aarch64") is None:
    pytest.skip("qemu-system-aarch64 is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def arm():
    """A running machine of aarch64 that no test may stop; the first there is makes image and template."""
    try:
        image.ensure(arch="aarch64", agent=binaries.agent("aarch64"))
    except (NotFound, Unavailable) as error:  # Ubuntu has its packages for arm64 on other servers
        pytest.skip(f"no image for aarch64 can be had: {error}")
    with Sandbox.started(name="arm", arch="aarch64") as sandbox:
        yield sandbox


def test_commands_run_on_the_other_architecture(arm):
    assert arm.run("uname -m", check=True).stdout == "aarch64\n"
    assert arm.run("cat", input="through a pipe", check=True).stdout == "through a pipe"
    assert arm.run(["sh", "-c", "exit 7"]).returncode == 7


def test_it_is_emulated_and_says_so(arm):
    assert arm.boot.accelerator.name == "tcg"
    assert arm.boot.accelerator.reason == f"a guest of aarch64 is emulated on {platform.machine()}"


def test_files_and_a_terminal_work(arm):
    arm.write("/root/file", bytes(range(256)) * 1000)
    assert arm.read("/root/file") == bytes(range(256)) * 1000
    with arm.popen("stty size", tty=(24, 80)) as process:
        assert b"24 80" in process.stdout.read()


def test_every_module_was_loaded(arm):
    """What the agent could not load it tells on the console."""
    assert "module" not in arm.console


def test_it_is_restored_and_no_twin(arm):
    seen = {arm.run("cat /proc/sys/kernel/random/uuid /etc/machine-id", check=True).stdout}
    for _ in range(2):
        with Sandbox.started(arch="aarch64") as sandbox:
            assert sandbox.boot.kind == "warm"
            assert sandbox.boot.template == arm.boot.template
            seen.add(sandbox.run("cat /proc/sys/kernel/random/uuid /etc/machine-id", check=True).stdout)
    assert len(seen) == 3


def test_it_is_another_template_than_the_hosts(arm, sb):
    assert sb.boot.template != arm.boot.template


def test_two_processors_are_there(arm):
    with Sandbox.started(arch="aarch64", cpu=2, memory=256, warm=False) as sandbox:
        assert sandbox.run("nproc", check=True).stdout == "2\n"
        assert sandbox.boot.kind == "cold"


def test_a_panic_and_its_last_words_reach_the_host(arm):
    with Sandbox() as sandbox:
        sandbox.start(arch="aarch64")
        with pytest.raises(Unavailable, match="(?s)the guest reset itself.*panic"):
            sandbox.run("echo c > /proc/sysrq-trigger")


def test_kvm_by_name_is_refused():
    with pytest.raises(FailedPrecondition, match="a guest of aarch64 is emulated"):
        Sandbox().start(arch="aarch64", accel="kvm")


def test_without_its_qemu_the_package_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotFound, match="qemu-system-aarch64 is not installed: .* qemu-system-arm"):
        Sandbox().start(arch="aarch64")


def test_devices_come_and_go(arm, tmp_path):
    """Native PCI Express hot-plug: without ACPI the guest takes its time, six seconds, to let go of a device."""
    (tmp_path / "shared").mkdir()
    arm.attach(Disk("data", tmp_path / "data", size="64M", format="ext4", target="/data"))
    arm.attach(Filesystem("work", tmp_path / "shared"))
    assert arm.run("echo kept > /data/file; echo shared > /mnt/work/file; sync", check=True)
    assert (tmp_path / "shared/file").read_text() == "shared\n"
    for name in ("data", "work"):
        arm.detach(name)
    with Sandbox.started(disks=[Disk("data", tmp_path / "data", target="/data")]) as other:
        assert other.run("cat /data/file", check=True).stdout == "kept\n"
