"""Files of npm and Debian archives: no link is followed, nothing fills the memory, damage is reported."""

from __future__ import annotations

import tarfile

import pytest

from jobs.assets import members
from jobs.assets.members import debian_members, npm_members
from kcm.errors import AssetError
from tests.jobs.assets.conftest import tarball

pytestmark = pytest.mark.usefixtures("dpkg_deb")


def test_links_and_folders_of_an_archive_are_passed_over(tmp_path):
    with tarfile.open(tmp_path / "x.deb", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE):
            entry = tarfile.TarInfo("./a")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    assert list(debian_members(tmp_path / "x.deb")) == []


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "MAX_BYTES", 10)
    package = tarball(tmp_path / "x.tgz", {"package/a": bytes(11)}, "w:gz")
    with pytest.raises(AssetError, match=r"'package/a' unpacks to 11 bytes, more than 10"):
        list(npm_members(package))


@pytest.mark.parametrize("read", [npm_members, debian_members])
def test_a_damaged_archive_is_named(read, tmp_path):
    (tmp_path / "x.tgz").write_bytes(b"nothing that anything could read" * 100)
    with pytest.raises(AssetError, match=r"damaged archive.*x\.tgz"):
        list(read(tmp_path / "x.tgz"))


def test_a_machine_without_dpkg_deb_gets_an_error_that_names_it(tmp_path):
    (tmp_path / "dpkg-deb").unlink()
    with pytest.raises(AssetError, match="dpkg-deb is not installed"):
        list(debian_members(tmp_path / "x.deb"))
