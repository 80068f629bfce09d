"""The tutorial is true: all that it says is typed in an environment that has only the wheel, on a table made here."""

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


def test_every_command_of_the_page_is_one_of_kcm() -> None:
    """The page is what the script types: six lines up to `kcm serve`, and no option that the program lacks."""
    typed = re.findall(r"^\$ (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert typed.index("kcm serve intents.yaml &") + 1 == MOST_COMMANDS
    for words in (shlex.split(line.removesuffix(" &"))[1:] for line in typed if line.startswith("kcm ")):
        load(words[0]).make_context(words[0], words[1:], resilient_parsing=False)


@pytest.mark.slow
def test_five_commands_lead_from_a_table_to_a_served_model(tmp_path: Path, assets_dir: Path) -> None:
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
    assert "the large model answers every input" in said[strict]
