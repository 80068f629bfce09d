"""A file of an output is whole or absent, wherever it lies, and what keeps it from being written is named."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from pyarrow import fs

from kcm.errors import ArtefactError
from kcm.inputs.location import Location
from pipelines.batch.drafts import drafted

Put = Callable[[str, bytes], str]


def test_an_object_is_put_as_a_whole_or_not_at_all(put_anywhere: Put) -> None:
    target = Location.of(put_anywhere("a.csv", b"old").replace("a.csv", "ö/b.csv"))
    with suppress(RuntimeError), drafted(target) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert target.kind() == fs.FileType.NotFound
    with drafted(target) as draft:
        draft.write_text("whole")
        assert target.kind() == fs.FileType.NotFound
    with target.open() as stream:
        assert stream.read() == b"whole"


def test_what_killed_writers_of_a_file_have_left_is_gone_when_it_is_there(tmp_path: Path) -> None:
    theirs, other = (tmp_path / f".{name}.{'0' * 32}.draft" for name in ("out.csv", "out.csv.b.csv"))
    theirs.touch()
    other.touch()
    with drafted(Location.of(tmp_path / "out.csv")) as draft:
        draft.touch()
    assert sorted(tmp_path.iterdir()) == [other, tmp_path / "out.csv"]


def test_a_bucket_that_does_not_exist_is_named(s3_server: str) -> None:
    target = Location.of(f"s3://absent/a.csv?endpoint_override={s3_server}")
    with pytest.raises(ArtefactError, match=r"the bucket 'absent' does not exist"), drafted(target) as draft:
        draft.touch()


def test_a_store_that_may_not_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise OSError("When initiating multiple part upload: AWS Error ACCESS_DENIED")

    monkeypatch.setattr("pipelines.batch.drafts.fs.copy_files", denied)
    target = Location.of("s3://rows/a.csv?region=us-east-1")
    with pytest.raises(ArtefactError, match=r"no right to write it \(s3://rows/a\.csv\)"), drafted(target) as draft:
        draft.touch()
