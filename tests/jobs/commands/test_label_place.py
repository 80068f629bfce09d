"""`kcm label`: where a table is read, where vectors are computed, and where the result goes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["films.csv", "-o", "s3://bucket/out.csv"], "the output is a file of this machine (s3://bucket/out.csv)"),
        (["gone.csv"], "no such file (gone.csv)"),
        (["ftp://host/films.csv"], "cannot read from ftp://"),
    ],
)
def test_a_place_that_cannot_be_used_is_named(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("films.csv").write_text("text,said\na film,good\n")
    done = CliRunner().invoke(app, ["label", *words, "--answers", "said"])
    assert done.exit_code == 2
    assert said in done.stderr
