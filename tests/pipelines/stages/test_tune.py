"""An interrupted search that cannot be read is kept, said, and begun anew; any other fault is none of its business."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray import tune as ray_tune

from pipelines.stages.tune import Trial, restored_search


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """The folder of a search that a crash has torn."""
    folder = tmp_path / "scratch" / "tune-kcm"
    folder.mkdir(parents=True)
    (folder / "tuner.pkl").write_bytes(b"torn")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "one.json").write_text("{}")
    return folder


@pytest.mark.parametrize("content", [b"torn", b"", b"cnowhere\nNothing\n.", b"(K\x01K\x02t.", None])
def test_a_search_that_cannot_be_read_is_kept_aside_and_said(
    content: bytes | None, search: Path, tmp_path: Path
) -> None:
    (search / "tuner.pkl").unlink() if content is None else (search / "tuner.pkl").write_bytes(content)
    (search / "trial").write_text("what a trial left")
    said: list[str] = []
    for number in (1, 2):
        assert restored_search(search, tmp_path / "results", Trial, tmp_path / "run", said.append) is None
        assert not search.exists()
        assert not (tmp_path / "results").exists()
        kept = tmp_path / "run" / f"tune-kcm-unreadable-{number}"
        assert str(kept) in said[-1].replace("\\", "")
        if number == 1:
            assert (kept / "trial").read_text() == "what a trial left"
            assert (kept / "results" / "one.json").exists()
            search.mkdir()
            (search / "tuner.pkl").write_bytes(b"torn again")
    assert restored_search(search, tmp_path / "results", Trial, tmp_path / "run", said.append) is None
    assert len(said) == 2


@pytest.mark.parametrize("fault", [OSError("a disk that fails"), MemoryError(), KeyboardInterrupt()])
def test_a_fault_of_the_machine_leaves_the_search_where_it_is(
    fault: BaseException, search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restore(*given: object, **more: object) -> None:
        raise fault

    monkeypatch.setattr(ray_tune.Tuner, "restore", restore)
    with pytest.raises(type(fault)):
        restored_search(search, tmp_path / "results", Trial, tmp_path / "run", print)
    assert (search / "tuner.pkl").exists()
    assert (tmp_path / "results" / "one.json").exists()
