"""Promise: what has appeared under its name is on disk, and so is the name."""

import os

from kcm.certification.ledger import Ledger, unit_hashes
from kcm.durable import replace_durably


def _synced(monkeypatch, target):
    """Inodes in the order in which they are written to disk, and whether `target` was there at that time."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append((os.fstat(handle).st_ino, target.exists())))
    return synced


def test_folder_is_on_disk_before_it_appears(tmp_path, monkeypatch):
    """Promise: a folder is on disk with all that it holds before it appears, and its name afterwards."""
    draft, target = tmp_path / "draft", tmp_path / "place" / "bundle"
    (draft / "inner").mkdir(parents=True)
    (draft / "inner" / "weights").write_text("w")
    target.parent.mkdir()
    before = {path.stat().st_ino for path in (draft, draft / "inner", draft / "inner" / "weights")}
    synced = _synced(monkeypatch, target)
    replace_durably(draft, target)
    assert set(synced[:-1]) == {(inode, False) for inode in before}
    assert synced[-1] == (target.parent.stat().st_ino, True)
    assert (target / "inner" / "weights").read_text() == "w"


def test_a_look_is_on_disk_with_its_name(tmp_path, monkeypatch):
    look = tmp_path / "looks" / "000000000001"
    synced = _synced(monkeypatch, look)
    Ledger(tmp_path).look(unit_hashes(["a"]), delta=0.1, digest="test", purpose="test")
    assert synced[-2:] == [(look.stat().st_ino, False), (look.parent.stat().st_ino, True)]
