"""Images of the distribution's own packages: built again without network, and booted."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from sandbox_nb import binaries
from sandbox_nb.guest import erofs, image, tree

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt is not installed")

# Loads everything in the order given, asks for more as the kernel would, and says what came of it.
INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /etc/sandbox_nb/modules.boot /etc/sandbox_nb/modules.late); do
    insmod $module || echo "failed=$module"
done
echo "loaded=$(wc -l < /proc/modules)"
echo "listed=$(cat /etc/sandbox_nb/modules.* | wc -l)"
modprobe -r isofs; modprobe fs-iso9660 || echo "failed=fs-iso9660"
grep -q '^isofs ' /proc/modules && echo "isofs=back"
modprobe ipv6 || echo "failed=ipv6"
for applet in $(busybox --list); do [ -x "/sbin/$applet" ] || echo "failed=$applet"; done
echo "root=$(stat -c %a /) home=$(stat -c %u:%g /home/user) user=$(id -u user) release=$(uname -r)"
if [ -b /dev/vda ]; then
    mount -t erofs /dev/vda /mnt && cd /mnt
    find . -type f | sort | xargs sha256sum | sed 's/^/sum=/'
    find . ! -type f | sort | xargs stat -c 'stat=%n %f %u'
    echo "long=$(readlink -n long | sha256sum)"
fi
echo done=yes
poweroff -f
"""


def boot(built: image.Image, *options: str) -> str:
    """Return what a machine with this image says on its console until it powers off."""
    command = [
        *("qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-m", "256", "-nodefaults", "-no-reboot"),
        *("-display", "none", "-serial", "stdio", "-kernel", built.kernel, "-initrd", built.initrd),
        *("-append", "console=ttyS0 quiet panic=-1 cryptomgr.notests mitigations=off", *options),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=100)
    text = done.stdout.decode(errors="replace").replace("\r", "")
    assert "done=yes" in text, text + done.stderr.decode()
    return text


@pytest.fixture
def scripted(offline, downloaded, tmp_path, monkeypatch) -> image.Image:
    """The base image with INIT in the agent's place."""
    shutil.copytree(downloaded / "images", offline / "images")
    agent = tmp_path / "init"
    agent.write_text(INIT)
    built = image.ensure(agent=agent)
    monkeypatch.undo()  # QEMU is to be found again
    return built


@pytest.mark.parametrize("name", image.NAMES)
def test_the_distributions_packages_have_all_that_is_wanted(downloaded, monkeypatch, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(downloaded.parent))
    built = image.find(name, agent=binaries.agent("x86_64"))
    assert built is not None
    assert json.loads((built.folder / "image.json").read_text())["notes"] == []
    assert built.kernel_kind == "vmlinux"


def test_an_image_is_built_again_without_network_to_the_same_bytes(downloaded, offline):
    again = image.ensure("python", agent=binaries.agent("x86_64"))
    first = downloaded / "images" / again.folder.name
    for name in ("vmlinux", "initrd", "root.erofs", "image.json"):
        assert (again.folder / name).read_bytes() == (first / name).read_bytes(), name
    assert sorted(path.name for path in (offline / "images").iterdir()) == [".lock", again.folder.name]


@pytest.mark.skipif(shutil.which("fsck.erofs") is None, reason="erofs-utils is not installed")
def test_the_python_root_is_a_sound_file_system_with_what_people_expect(downloaded, tmp_path):
    (root,) = downloaded.glob("images/python-*/root.erofs")
    extract = ["fsck.erofs", f"--extract={tmp_path / 'root'}", "--preserve-perms", root]
    subprocess.run(extract, check=True, capture_output=True)
    top = tmp_path / "root"
    for program in ("python3", "bash", "sh", "ls", "ps", "cat", "env", "modprobe"):
        assert (top / "usr/bin" / program).is_symlink() or (top / "usr/bin" / program).is_file(), program
    for link, target in {"bin": "usr/bin", "sbin": "usr/bin", "lib": "usr/lib"}.items():
        assert (top / link).readlink() == Path(target)
    assert (top / "etc/ssl/certs/ca-certificates.crt").read_text().count("BEGIN CERTIFICATE") > 50
    assert list((top / "usr/lib").glob("python3*/__pycache__/json*.pyc")) or list(
        (top / "usr/lib").glob("python3*/json/__pycache__/*.pyc")
    )
    assert not list(top.glob("usr/share/doc/*"))
    assert stat.S_IMODE((top / "tmp").stat().st_mode) & 0o777 == 0o777


@pytest.mark.vm
def test_every_module_loads_in_the_order_given_and_modprobe_finds_more(scripted):
    said = boot(scripted)
    assert "failed=" not in said, said
    facts = dict(line.split("=", 1) for line in said.splitlines() if line.startswith(("loaded=", "listed=")))
    assert facts["loaded"] == facts["listed"]
    assert "isofs=back" in said
    assert f"root=755 home=1000:1000 user=1000 release={scripted.release}" in said


@pytest.mark.vm
def test_the_kernel_reads_what_the_erofs_writer_wrote(scripted, tmp_path):
    rng = random.Random(5)
    sizes = (0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8192, 300_000)
    contents = {f"size{size}": rng.randbytes(size) for size in sizes}
    contents |= {f"many/{'n' * 100}{index}": str(index).encode() for index in range(200)}
    entries = [tree.file(name, data) for name, data in contents.items()]
    entries += [tree.symlink("long", "x" * 4000), tree.directory("home", 0o1750, owner=1000)]
    erofs.write(tmp_path / "disk", entries)
    said = boot(scripted, "-drive", f"file={tmp_path / 'disk'},format=raw,if=virtio,readonly=on")
    sums = dict(reversed(line[4:].split("  ./")) for line in said.splitlines() if line.startswith("sum="))
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    assert "stat=./home 43e8 1000" in said
    assert f"long={hashlib.sha256(b'x' * 4000).hexdigest()}" in said
