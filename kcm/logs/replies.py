"""Labels in the replies of a prompt: whether the replies classify, and how to find the label in each.

Replies wrap labels: in JSON, in a sentence that they all begin with, in quotes, with an explanation below. The first of
these readings that leaves few different values which cover nearly all replies is that of the template.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic_core import from_json, to_json

from kcm.large.prompts import matching_label
from kcm.logs.shared import shared_prefix, shared_suffix

COVERED = 0.95  # share of the replies that must be one of the labels
SEEDED = 0.5  # share that must be, if the others name one label in a sentence
MIN_REPLIES = 30  # with fewer nothing is said of a template
MOST_NAMED = 200  # labels that are sought in sentences
FEWEST, REPEATED = 3, 5  # replies of every label, and of a label on average
MAX_LENGTH = 100  # characters of a label
_MARKS = " \t\r\n\"'`*_.,;:!"
_FENCE = re.compile(r"^```\w*\n(.*?)\n?```$", re.DOTALL)
_BREAK = re.compile(r"[\n(]| - | – | — |: |\. ")  # between a label and its explanation
_DEPTH, _PHRASE = 3, 3

ReadLabel = Callable[[str], str | None]


@dataclass(frozen=True)
class LabelReader:
    """Finds the label of a reply.

    `names` are the labels as most replies spell them. `how` says where in a reply the label is. With `named`, a reply
    that contains exactly one of the labels as a word has this label. `explains` says that replies hold more than that.
    """

    names: tuple[str, ...]
    how: str
    read: ReadLabel
    named: bool = False
    explains: bool = False

    def label(self, reply: str | None) -> str | None:
        """The label of a reply; None if it has none."""
        if reply is None:
            return None
        value = self.read(reply)
        code = None if value is None else matching_label(value, self.names)
        if code is not None:
            return self.names[code]
        return self._named(reply) if self.named else None

    def wording(self, replies: Sequence[str]) -> dict[str, str]:
        """The reply of each label that its callers know, where it is another text than the label.

        That is how most replies of the label read. With an explanation in every reply there is none, unless the label
        is a field of JSON: then it is an object with this field.
        """
        by_label: dict[str, Counter[str]] = {}
        for reply in replies:
            if (label := self.label(reply)) is not None:
                by_label.setdefault(label, Counter())[reply] += 1
        wording = {}
        for label, counts in by_label.items():
            reply, votes = counts.most_common(1)[0]
            if votes > counts.total() / 2:
                wording[label] = reply
            elif self.how.startswith(_FIELD):
                wording[label] = to_json({self.how.removeprefix(_FIELD): label}).decode()
        return {label: reply for label, reply in wording.items() if reply != label}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Any label as words; longer ones first, since they may contain shorter ones."""
        names = sorted((name.casefold() for name in self.names), key=len, reverse=True)
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)")

    def _named(self, reply: str) -> str | None:
        found = set(self._pattern.findall(reply.casefold()))
        code = matching_label(found.pop(), self.names) if len(found) == 1 else None
        return None if code is None else self.names[code]


_FIELD = "field "


def label_reader(replies: Sequence[str]) -> LabelReader | None:
    """How to find the labels of these replies; None if they are no classification."""
    if len(replies) < MIN_REPLIES:
        return None
    readings = list(_readings(replies))
    for how, read in readings:
        values = [read(reply) for reply in replies]
        names = _names(values, len(replies), COVERED)
        if names:
            return LabelReader(names, how, read, explains=_explain(replies, how))
    for how, read in readings:
        names = _names([read(reply) for reply in replies], len(replies), SEEDED)
        if names and len(names) <= MOST_NAMED:
            reader = LabelReader(names, how, read, named=True, explains=True)
            if sum(reader.label(reply) is not None for reply in replies) >= COVERED * len(replies):
                return reader
    return None


def one_answer(replies: Sequence[str]) -> bool:
    """Whether nearly all replies are the same."""
    votes = Counter(_bare(reply) for reply in replies).most_common(1)
    return bool(votes) and votes[0][1] >= COVERED * len(replies)


def _names(values: Sequence[str | None], num_replies: int, covered: float) -> tuple[str, ...]:
    """The labels that cover enough of the replies, sorted; () if these are too many, too seldom or too long."""
    spellings = Counter(value for value in values if value)
    by_key: dict[str, Counter[str]] = {}
    for spelling, votes in spellings.items():
        by_key.setdefault(spelling.casefold(), Counter())[spelling] += votes
    by_key = {key: votes for key, votes in by_key.items() if votes.total() >= FEWEST and len(key) <= MAX_LENGTH}
    total = sum(votes.total() for votes in by_key.values())
    if len(by_key) < 2 or total < covered * num_replies or total < REPEATED * len(by_key):
        return ()
    return tuple(sorted(votes.most_common(1)[0][0] for votes in by_key.values()))


def _readings(replies: Sequence[str]) -> Iterator[tuple[str, ReadLabel]]:
    """Where a label may be, the plainest place first; answers of several fields are one label before one field is."""
    fields = [(f"{_FIELD}{field}", _of_field(field)) for field in _fields(replies)]
    before, after = ("", "") if fields else (_said(shared_prefix(replies)), _said(shared_suffix(replies)))

    def inner(reply: str) -> str:
        return reply.removeprefix(before).removesuffix(after)

    if len(fields) == 1:
        yield fields[0]
    if before or after:
        yield "text", lambda reply: _bare(inner(reply))
    yield "whole", _bare
    yield from fields
    yield "first line", lambda reply: _bare(_line(inner(reply), 0))
    yield "last line", lambda reply: _bare(_line(inner(reply), -1))
    yield "first words", lambda reply: _bare(_BREAK.split(inner(reply).strip(), maxsplit=1)[0])


def _said(shared: str) -> str:
    """What replies share, if it is a phrase: labels themselves may begin or end with the same word."""
    return shared if ":" in shared or len(shared.split()) >= _PHRASE else ""


def _bare(reply: str) -> str:
    """The reply without white space, quotes and marks around it, and without a fence of code."""
    text = reply.strip()
    fenced = _FENCE.match(text)
    return " ".join((fenced[1] if fenced else text).strip(_MARKS).split())


def _explain(replies: Sequence[str], how: str) -> bool:
    """Whether most replies hold more than the label: further fields, or text."""
    if how.startswith(_FIELD):
        return sum(len(_leaves(_object(reply))) > 1 for reply in replies) > len(replies) / 2
    return how not in ("whole", "text")


def _line(reply: str, position: int) -> str:
    lines = [line for line in reply.splitlines() if line.strip()]
    return lines[position] if lines else ""


def _fields(replies: Sequence[str]) -> list[str]:
    """Fields of the objects that replies are, those of texts before numbers; nested ones are joined by dots."""
    counts: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    for reply in replies:
        leaves = _leaves(_object(reply))
        counts.update(leaves.keys())
        texts.update(name for name, value in leaves.items() if isinstance(value, str))
    common = [name for name in counts if counts[name] >= SEEDED * len(replies)]
    return sorted(common, key=lambda name: texts[name] < counts[name] / 2)  # stable: in the order of the objects


def _of_field(field: str) -> ReadLabel:
    def read(reply: str) -> str | None:
        value = _leaves(_object(reply)).get(field)
        return None if value is None else _bare(str(value))

    return read


def _object(reply: str) -> object:
    text = reply.strip()
    fenced = _FENCE.match(text)
    text = fenced[1].strip() if fenced else text
    if not text.startswith("{"):
        return None
    try:
        return from_json(text)
    except ValueError:
        return None


def _leaves(value: object, prefix: str = "", depth: int = _DEPTH) -> dict[str, object]:
    """Texts, numbers and truths of an object by the path of their keys."""
    if not isinstance(value, dict) or depth == 0:
        return {}
    leaves: dict[str, object] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            leaves |= _leaves(inner, f"{prefix}{key}.", depth - 1)
        elif isinstance(inner, str | int | float | bool):
            leaves[f"{prefix}{key}"] = inner
    return leaves
