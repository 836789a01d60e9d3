"""Images as they are found, built, cached and removed. The packages here are small fakes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading

import pytest

from sandbox_nb.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, SandboxError
from sandbox_nb.guest import erofs, image, parts, rootfs, tree
from sandbox_nb.guest.store import Store

from . import fakes

# What a build may leave beside images: the lock.
BESIDE = [".lock"]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def folders(cache):
    return sorted(path.name for path in (cache / "images").iterdir())


@pytest.fixture
def given(tmp_path) -> dict[str, object]:
    """A kernel, its modules and a busybox of the user's own."""
    kernel = tmp_path / "own/vmlinuz"
    tree_ = fakes.write_tree(tmp_path / "own/lib/modules" / fakes.RELEASE, fakes.modules_tree(suffix=".ko.xz"))
    kernel.write_bytes(fakes.bzimage(fakes.vmlinux()))
    busybox = tmp_path / "own/busybox"
    busybox.write_bytes(fakes.busybox("ls"))
    return {"kernel": kernel, "modules": tree_, "busybox": busybox}


class TestFromPackages:
    def test_an_image_is_found_once_it_is_built(self, archive, agent):
        assert image.find(agent=agent) is None
        built = image.build(agent=agent)
        assert image.find(agent=agent) == built
        assert (built.name, built.arch, built.release) == ("base", "x86_64", fakes.RELEASE)
        assert (built.kernel_kind, built.root, built.root_type) == ("vmlinux", None, None)
        assert built.kernel.read_bytes().startswith(b"\x7fELF")
        assert built.initrd.is_file()

    def test_the_manifest_tells_what_is_in_it(self, archive, agent):
        built = image.build(agent=agent)
        manifest = json.loads((built.folder / "image.json").read_text())
        assert manifest["packages"] == {f"linux-image-{fakes.RELEASE}": "1.0", "busybox-static": "1.0"}
        assert manifest["notes"] == []
        assert manifest["files"]["initrd"]["size"] == built.initrd.stat().st_size

    def test_what_the_kernel_lacks_is_noted(self, archive, agent):
        archive.add_debian(without=("vmgenid",))
        built = image.build(agent=agent)
        manifest = json.loads((built.folder / "image.json").read_text())
        assert manifest["notes"] == ["the kernel has no module vmgenid"]

    def test_a_cached_image_touches_no_network(self, archive, agent, monkeypatch):
        built = image.build(agent=agent)
        monkeypatch.setenv("PATH", "/nowhere")
        shutil.rmtree(archive.folder)
        assert image.ensure(agent=agent) == built

    def test_a_new_agent_unpacks_nothing_and_touches_no_network(self, archive, agent, monkeypatch):
        built = image.build(agent=agent)
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr(parts, "open_packages", lambda *_: pytest.fail("a package was opened"))
        agent.write_bytes(b"\x7fELF a newer agent")
        assert image.find(agent=agent) is None
        newer = image.ensure(agent=agent)
        assert newer.digest != built.digest
        assert newer.kernel.read_bytes() == built.kernel.read_bytes()
        assert newer.initrd.read_bytes().count(b"a newer agent") == 1
        assert b"an agent" not in newer.initrd.read_bytes()
        agent.write_bytes(b"\x7fELF an agent")
        assert image.find(agent=agent) == built, "the older one is still there"

    def test_when_the_images_are_gone_the_cached_packages_do(self, archive, agent, cache, monkeypatch):
        built = image.build(agent=agent)
        before = files(built.folder)
        shutil.rmtree(cache / "images")
        monkeypatch.setenv("PATH", "/nowhere")
        assert image.ensure(agent=agent) == built
        assert files(built.folder) == before

    def test_the_same_packages_make_the_same_bytes_in_another_folder(self, archive, agent, tmp_path, monkeypatch):
        one = image.build(agent=agent)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
        two = image.build(agent=agent)
        assert one.folder != two.folder
        assert files(one.folder) == files(two.folder)

    def test_build_takes_newer_packages_and_ensure_does_not_look_for_them(self, archive, agent):
        old = image.build(agent=agent)
        archive.add_debian(version="2.0", without=("vmgenid",))
        assert image.ensure(agent=agent) == old
        new = image.build(agent=agent)
        assert new.digest != old.digest
        assert image.ensure(agent=agent) == new

    @pytest.mark.parametrize("damage", ["initrd", "vmlinux", "image.json"])
    def test_an_image_that_is_not_whole_is_built_again(self, archive, agent, damage):
        built = image.build(agent=agent)
        before = files(built.folder)
        os.truncate(built.folder / damage, 10)
        assert image.find(agent=agent) is None
        assert image.ensure(agent=agent) == built
        assert files(built.folder) == before

    def test_old_images_do_not_pile_up(self, archive, agent, cache):
        for number in range(8):
            agent.write_bytes(b"\x7fELF agent %d" % number)
            newest = image.ensure(agent=agent)
        assert len(folders(cache)) < 8
        assert image.find(agent=agent) == newest

    def test_python_takes_what_boots_from_base(self, archive, agent, monkeypatch):
        for name in rootfs.PACKAGES:
            archive.add(name, {f"usr/bin/{name}": b"program", "usr/share/doc/x": b"text"})
        base = image.build(agent=agent)
        monkeypatch.setattr(parts, "kernel_from_packages", lambda *_: pytest.fail("the kernel was unpacked"))
        python = image.build("python", agent=agent)
        assert python.kernel.stat().st_ino == base.kernel.stat().st_ino
        assert python.initrd.read_bytes() == base.initrd.read_bytes()
        assert python.digest != base.digest
        manifest = json.loads((python.folder / "image.json").read_text())
        assert manifest["notes"] == [
            "the standard library is not compiled: the packages have no python3 in the usual place"
        ]

    def test_images_of_two_architectures_live_side_by_side(self, archive, agent, cache, monkeypatch):
        archive.add_debian_arm64()
        ours = image.build(agent=agent)
        other = image.build(arch="aarch64", agent=agent)
        assert (other.arch, other.kernel_kind) == ("aarch64", "Image")
        assert other.kernel.read_bytes() == fakes.arm64_image()
        monkeypatch.setenv("PATH", "/nowhere")
        shutil.rmtree(archive.folder)
        shutil.rmtree(cache / "images")
        assert image.ensure(agent=agent) == ours, "its packages are still there"
        assert image.ensure(arch="aarch64", agent=agent) == other


class TestFromOwnFiles:
    def test_no_package_is_needed_when_all_parts_are_given(self, cache, agent, given, monkeypatch):
        monkeypatch.setenv("PATH", "/nowhere")
        built = image.build(agent=agent, **given)
        assert built.release == fakes.RELEASE
        assert image.ensure(agent=agent, **given) == built
        assert folders(cache) == [*BESIDE, built.folder.name]

    def test_only_what_is_not_given_comes_from_packages(self, archive, agent, given):
        del given["busybox"]
        built = image.build(agent=agent, **given)
        manifest = json.loads((built.folder / "image.json").read_text())
        assert manifest["packages"] == {"busybox-static": "1.0"}

    def test_own_files_are_not_taken_for_the_image_of_packages(self, archive, agent, given):
        image.build(agent=agent, **given)
        assert image.find(agent=agent) is None

    @pytest.mark.parametrize("levels", [0, 1, 3])
    def test_modules_may_be_given_by_a_folder_above_them(self, cache, agent, given, levels):
        for _ in range(levels):
            given["modules"] = given["modules"].parent
        assert image.build(agent=agent, **given).release == fakes.RELEASE

    def test_a_changed_file_makes_another_image(self, cache, agent, given):
        one = image.ensure(agent=agent, **given)
        given["busybox"].write_bytes(fakes.busybox("ls", "cat"))
        two = image.ensure(agent=agent, **given)
        assert one.digest != two.digest

    def test_paths_may_be_strings(self, cache, agent, given):
        assert image.build(agent=agent, **{name: str(path) for name, path in given.items()})

    @pytest.mark.parametrize("part", ["kernel", "modules", "busybox", "rootfs"])
    def test_a_path_that_is_not_there_is_named(self, cache, agent, given, tmp_path, part):
        with pytest.raises(NotFound, match=f"{part}: there is nothing at {tmp_path / 'missing'}"):
            image.build(agent=agent, **given | {part: tmp_path / "missing"})
        assert not cache.exists()

    @pytest.mark.parametrize("part", ["kernel", "modules"])
    def test_a_kernel_and_its_modules_come_together(self, cache, agent, given, part):
        del given[part]
        with pytest.raises(InvalidArgument, match=f"without {part}"):
            image.build(agent=agent, **given)

    def test_modules_of_another_kernel_are_refused(self, cache, agent, given):
        other = given["modules"].rename(given["modules"].with_name("5.0.0-other"))
        with pytest.raises(NotFound, match=f"holds no modules of the kernel .*, whose release is {fakes.RELEASE}"):
            image.build(agent=agent, **given | {"modules": other})
        assert folders(cache) == BESIDE

    @pytest.mark.parametrize("part", ["kernel", "busybox", "rootfs"])
    def test_a_file_of_another_kind_is_refused_and_nothing_is_left(self, cache, agent, given, tmp_path, part):
        wrong = tmp_path / "wrong"
        wrong.write_text("#!/bin/sh\n")
        with pytest.raises(InvalidArgument):
            image.build(agent=agent, **given | {part: wrong})
        assert folders(cache) == BESIDE

    def test_a_folder_becomes_the_root(self, cache, agent, given, tmp_path):
        fakes.write_tree(tmp_path / "root", {"etc/motd": b"hello\n"})
        built = image.build(agent=agent, rootfs=tmp_path / "root", **given)
        assert built.root_type == "erofs"
        assert built.root.parent == built.folder
        assert b"hello\n" in built.root.read_bytes()

    def test_a_new_agent_costs_no_new_root(self, cache, agent, given, tmp_path):
        fakes.write_tree(tmp_path / "root", {"etc/motd": b"hello"})
        one = image.build(agent=agent, rootfs=tmp_path / "root", **given)
        agent.write_bytes(b"\x7fELF another agent")
        two = image.build(agent=agent, rootfs=tmp_path / "root", **given)
        assert one.root.stat().st_ino == two.root.stat().st_ino

    @pytest.mark.parametrize(
        ("kind", "head"),
        [
            ("erofs", bytes(1024) + erofs.MAGIC),
            ("squashfs", b"hsqs"),
            ("ext4", bytes(0x438) + b"\x53\xef"),
        ],
    )
    def test_an_image_file_is_used_where_it_is(self, cache, agent, given, tmp_path, kind, head):
        own = tmp_path / "own.img"
        own.write_bytes(head + bytes(5000))
        built = image.build(agent=agent, rootfs=own, **given)
        assert (built.root, built.root_type) == (own, kind)
        assert image.ensure(agent=agent, rootfs=own, **given) == built

    @pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="e2fsprogs is not installed")
    def test_a_real_ext4_image_is_known(self, cache, agent, given, tmp_path):
        own = tmp_path / "own.ext4"
        with own.open("wb") as file:
            file.truncate(4 << 20)
        subprocess.run(["mkfs.ext4", "-q", own], check=True)
        assert image.build(agent=agent, rootfs=own, **given).root_type == "ext4"

    def test_the_erofs_images_made_here_are_known(self, cache, agent, given, tmp_path):
        erofs.write(tmp_path / "own.erofs", [tree.file("a", "b")])
        assert image.build(agent=agent, rootfs=tmp_path / "own.erofs", **given).root_type == "erofs"


class TestNames:
    def test_an_unknown_name_is_refused_with_those_there_are(self, cache, agent):
        with pytest.raises(InvalidArgument, match="no image 'pyhton'; there are base and python"):
            image.ensure("pyhton", agent=agent)

    def test_an_unknown_architecture_is_refused(self, cache, agent):
        with pytest.raises(InvalidArgument, match="no images for 'sparc'"):
            image.ensure(arch="sparc", agent=agent)

    def test_removed_images_are_gone_and_their_packages_stay(self, archive, agent, cache):
        built = image.build(agent=agent)
        assert image.list_images() == [built]
        assert image.remove("base") == [built.folder]
        assert image.list_images() == []
        assert folders(cache) == BESIDE
        assert len(list((cache / "apt/archives").glob("*.deb"))) == 2

    def test_to_remove_what_is_not_there_is_an_error(self, cache):
        with pytest.raises(NotFound, match="there is no image 'base'"):
            image.remove("base")


class TestFailures:
    def test_what_progress_raises_ends_the_build_and_nothing_is_left(self, archive, agent, cache):
        class Stop(Exception):
            pass

        stages = []

        def record(stage, done, total):
            stages.append(stage)

        image.build(agent=agent, progress=record)
        for stop_at in dict.fromkeys(stages):
            shutil.rmtree(cache)

            def stop(stage, done, total, at=stop_at):
                if stage == at:
                    raise Stop

            with pytest.raises(Stop):
                image.build(agent=agent, progress=stop)
            assert folders(cache) == BESIDE
        assert {*stages} == {"package lists", "packages", "kernel"}

    def test_an_interrupt_leaves_nothing_half_made(self, archive, agent, cache, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(parts, "busybox_from_packages", interrupted)
        with pytest.raises(KeyboardInterrupt):
            image.build(agent=agent)
        assert folders(cache) == BESIDE

    def test_what_a_dead_builder_left_is_no_image_and_is_swept(self, archive, agent, cache):
        built = image.build(agent=agent)
        left = cache / "images/.building-dead/image"
        shutil.copytree(built.folder, left)
        half = cache / "images/base-0123456789abcdef"
        half.mkdir()
        (half / "initrd").write_bytes(b"half removed")
        assert image.list_images() == [built]
        agent.write_bytes(b"\x7fELF another agent")
        image.ensure(agent=agent)
        assert not left.exists()
        assert not half.exists()

    def test_a_second_builder_waits_and_may_give_up(self, archive, agent):
        class Stop(Exception):
            pass

        def stop(stage, done, total):
            assert stage == "waiting for another build"
            raise Stop

        with Store().locked(lambda *_: None), pytest.raises(Stop):
            image.build(agent=agent, progress=stop)

    def test_what_a_builder_forked_and_left_running_keeps_no_lock(self, archive):
        with Store().locked(lambda *_: None):
            child = os.fork()
            if child == 0:
                signal.pause()
        try:
            with Store().locked(lambda *_: pytest.fail("the lock is held")):
                pass
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def test_two_builders_at_once_make_one_image(self, archive, agent, cache):
        built = []
        threads = [threading.Thread(target=lambda: built.append(image.ensure(agent=agent))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(built) == 4
        assert len({*built}) == 1
        assert folders(cache) == [*BESIDE, built[0].folder.name]

    def test_a_cache_folder_that_is_a_file_is_refused_with_the_remedy(self, cache, agent, given):
        cache.parent.mkdir()
        cache.write_text("")
        with pytest.raises(FailedPrecondition, match="set XDG_CACHE_HOME"):
            image.build(agent=agent, **given)

    @pytest.mark.skipif(os.geteuid() != 0, reason="to mount a small disk takes root")
    @pytest.mark.parametrize("size", ["64k", "192k", "320k"])
    def test_a_full_disk_is_told_and_nothing_is_left(self, cache, agent, given, tmp_path, size):
        fakes.write_tree(tmp_path / "root", {"big": os.urandom(400_000)})
        cache.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", cache], check=True)
        try:
            with pytest.raises(ResourceExhausted, match="no space left"):
                image.build(agent=agent, rootfs=tmp_path / "root", **given)
            assert folders(cache) == BESIDE
        finally:
            subprocess.run(["umount", cache], check=True)

    @pytest.mark.skipif(os.geteuid() != 0, reason="to mount a small disk takes root")
    def test_a_disk_that_fills_while_packages_come_is_told(self, archive, cache, agent):
        archive.add("busybox-static", {"bin/busybox": fakes.busybox("ls"), "big": os.urandom(3_000_000)})
        cache.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", cache], check=True)
        try:
            with pytest.raises(SandboxError, match="disk is full|no space left"):
                image.build(agent=agent)
            assert folders(cache) == BESIDE
        finally:
            subprocess.run(["umount", cache], check=True)
