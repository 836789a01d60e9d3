"""An apt of our own: what it resolves, what it leaves alone, and how it fails."""

from __future__ import annotations

import os
import tempfile
import traceback
from pathlib import Path

import pytest

from sandbox_nb.errors import NotFound, Unavailable
from sandbox_nb.guest import sources
from sandbox_nb.guest.packages import Apt
from sandbox_nb.guest.sources import BUSYBOX, KERNEL, Sources

from . import fakes
from .fakes import Archive

pytestmark = pytest.mark.skipif(not Path("/usr/bin/apt-get").exists(), reason="apt is not installed")


def silent(stage, done, total):
    pass


@pytest.fixture
def apt(archive, cache) -> Apt:
    apt = Apt(cache / "apt", "x86_64", silent)
    apt.update()
    return apt


def test_a_closure_is_what_would_have_to_be_there_without_what_is_assumed(archive, cache):
    archive.add("app", {"usr/bin/app": b""}, depends="lib (>= 1.0), dpkg (>= 1.13), awk | perl")
    archive.add("lib", {"usr/lib/lib": b""})
    archive.add("dpkg", {"usr/bin/dpkg": b""})
    apt = Apt(cache / "apt", "x86_64", silent)
    apt.update()
    assert apt.closure(["app"]) == ["app", "lib"]


def test_the_closure_is_the_same_when_everything_is_downloaded(apt):
    before = apt.closure(["linux-image-amd64"])
    apt.download(apt.locate(before))
    assert apt.closure(["linux-image-amd64"]) == before


def test_what_is_downloaded_is_whole_and_not_fetched_again(apt, archive):
    packages = apt.locate(["busybox-static"])
    assert [(package.name, package.version) for package in packages] == [("busybox-static", "1.0")]
    assert not apt.holds(packages[0])
    apt.download(packages)
    assert apt.holds(packages[0])
    (archive.folder / "busybox-static_1.0_amd64.deb").unlink()
    apt.download(packages)


def test_a_damaged_download_is_noticed_and_fetched_again(apt):
    packages = apt.locate(["busybox-static"])
    apt.download(packages)
    path = apt.archives / packages[0].file
    path.write_bytes(bytes(path.stat().st_size))
    assert not apt.holds(packages[0])
    apt.download(packages)
    assert apt.holds(packages[0])


def test_an_unknown_package_is_unavailable_and_named(apt):
    assert not apt.has("nonsense")
    with pytest.raises(Unavailable, match="nonsense"):
        apt.locate(["nonsense"])


def test_a_package_that_is_gone_from_the_archive_is_unavailable(apt, archive):
    packages = apt.locate(["busybox-static"])
    (archive.folder / packages[0].file).unlink()
    with pytest.raises(Unavailable, match="download failed"):
        apt.download(packages)
    assert not list(apt.archives.glob("*.deb"))
    assert not list(apt.archives.parent.glob("download-*"))


def test_the_hooks_of_the_system_do_not_run(apt, archive):
    assert not (archive.folder / "hook-ran").exists()


def test_the_system_is_left_alone(archive, cache):
    def state():
        folders = [
            "/var/lib/apt",
            "/var/lib/apt/lists",
            "/var/cache/apt",
            "/var/cache/apt/archives",
            "/var/lib/dpkg",
        ]
        return [(folder, os.stat(folder).st_mtime_ns, sorted(os.listdir(folder))) for folder in folders]

    before = state()
    Sources(cache, "x86_64", silent).fetch([KERNEL, BUSYBOX])
    assert state() == before


def test_progress_is_told_in_bytes_and_what_it_raises_ends_apt(archive, cache):
    class Stop(Exception):
        pass

    told = []

    def stop(stage, done, total):
        told.append((stage, done, total))
        raise Stop

    with pytest.raises(Stop):
        Apt(cache / "apt", "x86_64", stop).update()
    assert told[0][0] == "package lists"
    assert 0 <= told[0][1] <= told[0][2]


def test_without_apt_the_error_says_so(archive, cache, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotFound, match="no apt-get"):
        Apt(cache / "apt", "x86_64", silent).update()


@pytest.fixture
def public():
    """A folder that every user can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="to become another user takes root")
def test_it_works_for_a_user_with_nothing_but_a_cache_folder(public, monkeypatch):
    archive = Archive(public / "archive")
    archive.add_debian()
    monkeypatch.setenv("APT_CONFIG", str(archive.config))
    monkeypatch.setenv("HOME", "/nonexistent")
    cache = public / "cache"
    cache.mkdir()
    os.chown(cache, 65534, 65534)
    # This very interpreter goes on as that user: another one might lie where only root can run it.
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            Sources(cache, "x86_64", silent).fetch([KERNEL, BUSYBOX])
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(list((cache / "apt/archives").glob("*.deb"))) == 2
    assert {path.stat().st_uid for path in cache.rglob("*")} == {65534}


class TestKernels:
    """Which packages the kernel and its modules come from."""

    def fetched(self, cache):
        found = Sources(cache, "x86_64", silent)
        found.fetch([KERNEL])
        return [package.name for package in found.recorded(KERNEL)]

    def test_debian_has_both_in_one_package(self, archive, cache):
        assert self.fetched(cache) == [f"linux-image-{fakes.RELEASE}"]

    def add_ubuntu(self, archive, *without):
        archive.remove("linux-image-amd64")
        release, tree = fakes.RELEASE, fakes.modules_tree(suffix=".ko.zst")
        extra = {path: data for path, data in tree.items() if path.split("/")[-1].split(".")[0] in without}

        def below(files):
            return {f"lib/modules/{release}/{path}": data for path, data in files.items()}

        kernel = {f"boot/vmlinuz-{release}": fakes.bzimage(fakes.vmlinux(), "zstd")}
        archive.add(f"linux-image-{release}", kernel, depends=f"linux-modules-{release}")
        rest = {path: data for path, data in tree.items() if path not in extra}
        archive.add(f"linux-modules-{release}", below(rest))
        archive.add(f"linux-modules-extra-{release}", below(extra))
        archive.add("linux-image-virtual", {"usr/share/doc/x": b""}, depends=f"linux-image-{release}")

    def test_ubuntu_has_the_modules_in_a_package_of_their_own(self, archive, cache):
        self.add_ubuntu(archive)
        assert self.fetched(cache) == [f"linux-image-{fakes.RELEASE}", f"linux-modules-{fakes.RELEASE}"]

    def test_ubuntus_extra_modules_are_fetched_when_one_is_wanted(self, archive, cache):
        self.add_ubuntu(archive, "9p", "9pnet-virtio")
        names = self.fetched(cache)
        assert f"linux-modules-extra-{fakes.RELEASE}" in names
        assert len(names) == 3

    def test_a_distribution_without_a_known_kernel_is_an_error_with_the_remedy(self, archive, cache):
        archive.remove("linux-image-amd64")
        with pytest.raises(NotFound, match="none of linux-image-amd64(.|\n)*--kernel FILE"):
            self.fetched(cache)

    def test_no_network_and_nothing_cached_is_an_error_with_the_remedy(self, archive, cache):
        (archive.folder / "Packages").unlink()
        with pytest.raises((Unavailable, NotFound)) as caught:
            Sources(cache, "x86_64", silent).fetch([BUSYBOX])
        assert sources.REMEDY in str(caught.value)


def test_files_that_no_record_names_any_more_are_removed(archive, cache):
    found = Sources(cache, "x86_64", silent)
    found.fetch([KERNEL, BUSYBOX])
    archive.add_debian(version="2.0")
    found.fetch([KERNEL])
    names = sorted(path.name for path in (cache / "apt/archives").glob("*.deb"))
    assert names == ["busybox-static_1.0_amd64.deb", f"linux-image-{fakes.RELEASE}_2.0_amd64.deb"]
    assert found.held(BUSYBOX)
