"""Templates are found among calls of several, and classifications among their answers."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from kcm.logs.call import LoggedCall
from kcm.logs.grouping import Group, groups
from kcm.logs.replies import label_reader
from kcm.logs.shared import shared_prefix, shared_suffix
from kcm.logs.template import Message

WORDS = "card payment refund account login phone address transfer money cash limit fee charge"
LABELS = ("billing", "login", "other")


def words(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS.split(), k=rng.randint(4, 12)))


def call(user: str, reply: str, system: str | None = None) -> LoggedCall:
    start = [{"role": "system", "content": system}] if system else []
    return LoggedCall((*start, {"role": "user", "content": user}), reply)


def fixed(found: list[Group]) -> set[tuple[str, str, str]]:
    return {(group.template.before, group.template.after, group.kind) for group in found}


def test_templates_without_a_system_prompt_are_told_apart() -> None:
    """One of them is free text, and a few messages of people are of none."""
    rng = random.Random(0)
    calls = []
    for number in range(300):
        text = words(rng)
        calls.append(call(f"Classify the ticket into queues.\n\nTicket: {text}\nQueue:", rng.choice(LABELS)))
        calls.append(call(f"Write a friendly reply to this customer: {text}", words(rng)))
        if number % 100 == 0:
            calls.append(call(f"{text}?", words(rng)))
    rng.shuffle(calls)
    found = fixed(groups(calls))
    assert ("Classify the ticket into queues.\n\nTicket: ", "\nQueue:", "classification") in found
    assert ("Write a friendly reply to this customer: ", "", "free text") in found
    assert len(found) == 2


def test_system_prompts_are_part_of_the_template() -> None:
    rng = random.Random(0)
    calls = [call(words(rng), rng.choice(LABELS), f"Prompt {version}") for _ in range(100) for version in (1, 2)]
    assert {group.template.messages for group in groups(calls)} == {
        (Message(role="system", content="Prompt 1"),),
        (Message(role="system", content="Prompt 2"),),
    }


def test_texts_that_begin_alike_are_one_template() -> None:
    """Half of the customers write their subject first: both halves have the same labels."""
    rng = random.Random(0)
    starts = ("Subject: something in my account\n\n", "")
    calls = [call(f"Ticket: {rng.choice(starts)}{words(rng)}", rng.choice(LABELS)) for _ in range(400)]
    assert fixed(groups(calls)) == {("Ticket: ", "", "classification")}


def test_few_foreign_calls_do_not_hide_a_template() -> None:
    rng = random.Random(0)
    calls = [call(f"Ticket: {words(rng)}\nQueue:", rng.choice(LABELS)) for _ in range(300)]
    calls += [call(words(rng), words(rng)) for _ in range(5)]
    assert fixed(groups(calls)) == {("Ticket: ", "\nQueue:", "classification")}


def test_one_text_again_and_again_is_no_fixed_text() -> None:
    found = groups([call("hi", "Hello!")] * 50)
    assert fixed(found) == {("", "", "free text")}
    assert found[0].template.text([{"role": "user", "content": "hi"}]) == "hi"


def test_prefix_ends_with_a_word() -> None:
    """All texts begin with an r, and with a quote."""
    texts = ['Classify: "refund"', 'Classify: "rate"', 'Classify: "room"']
    assert shared_prefix(texts) == 'Classify: "'
    assert shared_suffix(texts) == '"'
    assert shared_suffix(["why?", "who?", "no"] * 40 + ["how?"] * 9000) == ""


REPLIES: dict[str, Callable[[str, str], str]] = {
    "quotes": lambda label, more: f'"{label.title()}".',
    "json": lambda label, more: f'{{"queue": "{label}"}}',
    "fenced json": lambda label, more: f'```json\n{{"queue": "{label}", "reason": "{more}"}}\n```',
    "sentence": lambda label, more: f"The queue of this ticket is {label}.",
    "explanation below": lambda label, more: f"{label}\n\nThe customer writes: {more}",
    "explanation above": lambda label, more: f"The customer writes: {more}\n{label}",
    "key and explanation": lambda label, more: f"Queue: **{label}**\nReason: {more}",
    "dash": lambda label, more: f"{label} - {more}",
}


@pytest.mark.parametrize("form", REPLIES)
def test_labels_inside_replies(form: str) -> None:
    """Every reply gives the label that it was written for, in the same letters."""
    rng = random.Random(0)
    labels = rng.choices(LABELS, k=200)
    replies = [REPLIES[form](label, words(rng)) for label in labels]
    reader = label_reader(replies)
    assert reader is not None
    assert [str(reader.label(reply)).lower() for reply in replies] == labels


@pytest.mark.parametrize(
    "reply",
    [
        lambda rng, n: words(rng) + f" {n}",
        lambda rng, n: rng.choice(LABELS) if n % 3 else words(rng) + f" {n}",
        lambda rng, n: f'{{"summary": "{words(rng)} {n}"}}',
        lambda rng, n: "yes",
    ],
    ids=["free text", "a third is free text", "free text in json", "one answer"],
)
def test_other_answers_are_no_classification(reply: Callable[[random.Random, int], str]) -> None:
    rng = random.Random(0)
    assert label_reader([reply(rng, number) for number in range(300)]) is None


def test_wording_that_callers_know() -> None:
    """A label in JSON is answered in JSON; without its explanation, which no caller can know."""
    rng = random.Random(0)
    plain = [f'{{"queue": "{label}"}}' for label in rng.choices(LABELS, k=100)]
    reader = label_reader(plain)
    assert reader is not None
    assert reader.wording(plain) == {label: f'{{"queue": "{label}"}}' for label in LABELS}
    told = [f'{{"queue": "{label}", "why": "{words(rng)}"}}' for label in rng.choices(LABELS, k=100)]
    reader = label_reader(told)
    assert reader is not None
    assert reader.explains
    assert reader.wording(told) == {label: f'{{"queue":"{label}"}}' for label in LABELS}
