from __future__ import annotations

import asyncio
import json
from pathlib import Path

from pipelines.serve.http.middleware.requestlog import LineLog


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lines_are_written_together_a_little_later_and_in_order(tmp_path: Path) -> None:
    async def logged() -> int:
        log = LineLog(tmp_path / "log", delay_s=0.05)
        for number in range(3):
            log.add({"number": number})
        before = (tmp_path / "log").stat().st_size
        await asyncio.sleep(0.2)
        log.add({"number": 3})
        await asyncio.sleep(0.2)
        return before

    assert asyncio.run(logged()) == 0
    written = lines(tmp_path / "log")
    assert [line["number"] for line in written] == [0, 1, 2, 3]
    assert all(str(line["time"]).endswith("+00:00") for line in written)


def test_a_text_with_line_breaks_stays_on_its_line(tmp_path: Path) -> None:
    async def logged() -> None:
        log = LineLog(tmp_path / "log")
        log.add({"path": "/v1\n{}"})
        log.flush()

    asyncio.run(logged())
    (line,) = lines(tmp_path / "log")
    assert line["path"] == "/v1\n{}"


def test_a_full_file_gives_way_to_the_next(tmp_path: Path) -> None:
    async def logged() -> None:
        log = LineLog(tmp_path / "log", max_bytes=100, num_backups=1)
        for number in range(5):
            log.add({"number": number})
            log.flush()

    asyncio.run(logged())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    assert [line["number"] for line in lines(tmp_path / "log")] == [4]
