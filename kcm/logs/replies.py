"""Whether the replies to a prompt classify, and where in each reply the label is.

Replies wrap labels: in JSON, in a sentence that they all begin with, in quotes, with an explanation below. The first of
these readings that leaves few different values which cover nearly all replies is that of the template.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic_core import to_json

from kcm.logs.reading import FIELD, FIRST_LINE, FIRST_WORDS, LAST_LINE, WHOLE, ReplyReading, leaves
from kcm.logs.shared import shared_prefix, shared_suffix

COVERED = 0.95  # share of the replies that must be one of the labels
_COMMON = 0.5  # share of the replies that have a field
MIN_REPLIES = 30  # with fewer calls, a template gets no verdict
FEWEST, REPEATED = 3, 5  # replies of every label, and of a label on average
MAX_LENGTH = 100  # characters of a label
_PHRASE = 3


@dataclass(frozen=True)
class LabelReader:
    """Finds the label of a reply.

    `names` are the labels as most replies spell them. `explains` says that replies hold more than the label.
    """

    names: tuple[str, ...]
    reading: ReplyReading
    explains: bool = False

    def label(self, reply: str | None) -> str | None:
        """The label of a reply; None if it has none."""
        return None if reply is None else self.reading.label(reply, self.names)

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
            elif self.reading.field is not None:
                wording[label] = to_json({self.reading.field: label}).decode()
        return {label: reply for label, reply in wording.items() if reply != label}


def label_reader(replies: Sequence[str]) -> LabelReader | None:
    """How to find the labels of these replies; None if they are no classification."""
    if len(replies) < MIN_REPLIES:
        return None
    for reading in _readings(replies):
        names = _names([reading.value(reply) for reply in replies], len(replies))
        if names:
            return LabelReader(names, reading, explains=_explain(replies, reading))
    return None


def _names(values: Sequence[str | None], num_replies: int) -> tuple[str, ...]:
    """The labels that cover enough of the replies, sorted; () if they are too many, too rare or too long."""
    spellings = Counter(value for value in values if value)
    by_key: dict[str, Counter[str]] = {}
    for spelling, votes in spellings.items():
        by_key.setdefault(spelling.casefold(), Counter())[spelling] += votes
    by_key = {key: votes for key, votes in by_key.items() if votes.total() >= FEWEST and len(key) <= MAX_LENGTH}
    total = sum(votes.total() for votes in by_key.values())
    if len(by_key) < 2 or total < COVERED * num_replies or total < REPEATED * len(by_key):
        return ()
    return tuple(sorted(votes.most_common(1)[0][0] for votes in by_key.values()))


def _readings(replies: Sequence[str]) -> Iterator[ReplyReading]:
    """Where a label may be, the plainest place first; answers of several fields are one label before one field is."""
    fields = [ReplyReading(place=f"{FIELD}{field}") for field in _fields(replies)]
    before, after = ("", "") if fields else (_said(shared_prefix(replies)), _said(shared_suffix(replies)))
    if len(fields) == 1:
        yield fields[0]
    if before or after:
        yield ReplyReading(before=before, after=after)
    yield ReplyReading()
    yield from fields
    for place in (FIRST_LINE, LAST_LINE, FIRST_WORDS):
        yield ReplyReading(place=place, before=before, after=after)


def _said(shared: str) -> str:
    """What replies share, if it is a phrase: labels themselves may begin or end with the same word."""
    return shared if ":" in shared or len(shared.split()) >= _PHRASE else ""


def _explain(replies: Sequence[str], reading: ReplyReading) -> bool:
    """Whether most replies hold more than the label: further fields, or text."""
    if reading.field is not None:
        return sum(len(leaves(reply)) > 1 for reply in replies) > len(replies) / 2
    return reading.place != WHOLE


def _fields(replies: Sequence[str]) -> list[str]:
    """Fields of replies that are objects, texts before numbers; nested names are joined by dots."""
    counts: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    for reply in replies:
        values = leaves(reply)
        counts.update(values.keys())
        texts.update(name for name, value in values.items() if isinstance(value, str))
    common = [name for name in counts if counts[name] >= _COMMON * len(replies)]
    return sorted(common, key=lambda name: texts[name] < counts[name] / 2)  # stable: in the order of the objects
