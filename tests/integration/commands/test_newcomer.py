"""The tutorial is true: all that it says is typed in an environment that has only the wheel, on a table made here."""

from __future__ import annotations

import random
import re
import shlex
from pathlib import Path

import pytest

from jobs.cli import load
from tests.newcomer import MOST_COMMANDS, PAGE, Newcomer, Row, build_wheel, write_tables

pytestmark = pytest.mark.integration

WANTS = {
    "book_hotel": ("a room", "a suite for two", "somewhere to sleep", "a hotel by the sea"),
    "distance": ("the way", "the road in miles", "how far it is", "the distance on foot"),
    "lost_luggage": ("my lost bag", "a suitcase that is gone", "luggage that never came", "my missing trunk"),
    "weather": ("the weather", "whether it rains", "how warm it will be", "a forecast"),
}
ASKED = ("tell me about {} in {}", "{} in {} please", "i need {} in {}", "what of {} in {}", "help me with {} in {}")
PLACES = ("lisbon", "oslo", "quito", "cairo", "delhi", "paris", "lima", "tunis", "prague", "hanoi", "dakar", "turin")
FASTER = " --set tune.num_trials=1 --set train.num_epochs=8 --set cluster.num_encoders=1 --set cluster.num_workers=1"


def requests(num_rows: int) -> list[Row]:
    """Rows whose label is what is wanted in a place; no text twice."""
    texts = {
        (asked.format(want, place), label)
        for label, wants in WANTS.items()
        for want in wants
        for asked in ASKED
        for place in PLACES
    }
    return random.Random(0).sample(sorted(texts), num_rows)


SMALL_PAGE = """
Words stay.

```console
$ echo one; echo two >&2
what an earlier version said
$ python3 serve.py &
```

```python
print(6 * 7)
```

```text
41
```

```text
not what Python said
```
"""
SERVICE = """
import sys
print("args", *sys.argv[1:])
print("it answers at http://127.0.0.1:" + sys.argv[2].partition("=")[2], flush=True)
try:
    sys.stdin.read() or __import__("time").sleep(60)
except KeyboardInterrupt:
    print("gone")
"""


def test_what_commands_say_takes_the_place_of_what_stood_below_them(tmp_path: Path) -> None:
    (wheel := tmp_path / "kcm-0-py3-none-any.whl").touch()
    (tmp_path / "newcomer").mkdir()
    (tmp_path / "newcomer" / "serve.py").write_text(SERVICE)
    newcomer = Newcomer(tmp_path / "newcomer", wheel)
    (tmp_path / "newcomer" / ".venv" / "bin").mkdir(parents=True)
    page = newcomer.play(SMALL_PAGE)
    assert "Words stay.\n\n```console\n$ echo one; echo two >&2\none\ntwo\n$ python3 serve.py &\n" in page
    assert "it answers at http://127.0.0.1:8000\n```" in page
    assert "```text\n42\n```\n\n```text\nnot what Python said\n```" in page
    assert [each.command for each in newcomer.played][-1] == "Ctrl-C"
    assert newcomer.played[-1].said == "gone\n"


def test_a_command_that_fails_ends_it_with_what_it_said(tmp_path: Path) -> None:
    (wheel := tmp_path / "kcm-0-py3-none-any.whl").touch()
    (tmp_path / "newcomer").mkdir()
    with pytest.raises(RuntimeError, match=r"(?s)failed with 3:.*no such table"):
        Newcomer(tmp_path / "newcomer", wheel).play("```console\n$ echo no such table; exit 3\n```\n")


def test_every_command_of_the_page_is_one_of_kcm() -> None:
    """The page is what the script types: six lines up to `kcm serve`, and no option that the program lacks."""
    typed = re.findall(r"^\$ (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert typed.index("kcm serve intents.yaml &") + 1 == MOST_COMMANDS
    for words in (shlex.split(line.removesuffix(" &"))[1:] for line in typed if line.startswith("kcm ")):
        load(words[0]).make_context(words[0], words[1:], resilient_parsing=False)


@pytest.mark.slow
def test_six_commands_lead_from_a_table_to_a_served_model(tmp_path: Path, assets_dir: Path) -> None:
    for name in ("wheel", "newcomer"):
        (tmp_path / name).mkdir()
    write_tables(tmp_path / "newcomer", requests(600))
    strict = "kcm run few.yaml --set certificate.epsilon=0.02"
    more = dict.fromkeys(("kcm run intents.yaml", strict), FASTER)
    newcomer = Newcomer(tmp_path / "newcomer", build_wheel(tmp_path / "wheel"), assets_dir, borrow=True, more=more)
    page = newcomer.play(f"{PAGE.read_text(encoding='utf-8')}\n```console\n$ {strict}\n```\n")
    assert len(newcomer.to_a_served_model) <= MOST_COMMANDS
    said = {each.command: each.said for each in newcomer.played}
    assert "the champion" in said["kcm run intents.yaml"]
    assert "answers at http://127.0.0.1:8000" in said["kcm serve intents.yaml &"]
    assert said["Ctrl-C"] == ""  # no lines of Ray's
    assert "Traceback" not in page
    assert str(tmp_path) not in page
    assert "sends every input to the large model" in said[strict]
