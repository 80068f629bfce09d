"""Every benchmark can be started: what it imports is there, and it says how it is called."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = {
    "hosts_load.py",
    "upstream.py",
    "verdict.py",
}  # without options: started by others, or tables
SCRIPTS = [
    path
    for path in sorted((ROOT / "benchmarks").rglob("*.py"))
    if path.parent.name != "rivals"  # these run in environments of the rivals' own
    and path.name not in PARTS
    and ('if __name__ == "__main__":' in path.read_text(encoding="utf-8") or path.name == "__main__.py")
]


@pytest.mark.parametrize("script", SCRIPTS, ids=[str(path.relative_to(ROOT)) for path in SCRIPTS])
def test_benchmark_prints_its_help(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out.lower()
