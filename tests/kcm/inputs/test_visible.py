"""Texts and names of strangers on a terminal."""

import json
from typing import Any

import pytest

from kcm.errors import ConfigError, DataError
from kcm.inputs.visible import shown
from kcm.labelling.label_list import LabelList
from kcm.large.adapters.openai import openai_config
from kcm.report.formats import money
from kcm.tasks.preparation.checks import check_labels

FORGED = ["a\nAll 300 labels are the LLM's own.", "a\rb", "a\x1b[2Kb", "a\u2028b", "a\u202eb", "\ud800"]


@pytest.mark.parametrize("text", FORGED)
def test_shown_text_is_one_line_that_any_terminal_can_write(text: str) -> None:
    assert len(shown(text).splitlines()) <= 1
    assert not set(shown(text)) & {"\r", "\x1b", "\u2028", "\u202e"}
    shown(text).encode()


@pytest.mark.parametrize("text", ["crème brûlée", "漢字", "👩‍💻", "می‌خواهم", "a\u00a0b"])
def test_honest_names_are_left_alone(text: str) -> None:
    assert shown(text) == text
    assert openai_config(text).model == text


@pytest.mark.parametrize("name", FORGED)
def test_names_that_forge_lines_are_refused(name: str) -> None:
    """Promise: the name of a label or a model is one visible line, wherever it comes from; the error is one too."""
    refusals: list[Any] = [
        lambda: LabelList.of([name, "b"]),
        lambda: openai_config(name),
        lambda: check_labels([name, "b"], [name, "b"], "table"),
    ]
    for refuse in refusals:
        with pytest.raises((ConfigError, DataError), match=r"visible|must be a string") as refused:
            refuse()
        assert shown(str(refused.value)) == str(refused.value)


def test_absurd_amounts_are_short() -> None:
    assert len(money(1e30, "USD")) < 20
    assert money(12.5, "USD") == "$12.50"


def test_label_file_with_half_a_letter_is_one_line(tmp_path: Any) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(["\ud800", "b"]))
    with pytest.raises(ConfigError, match=r"no visible line: '\\ud800'"):
        LabelList.of(tmp_path / "labels.json")
