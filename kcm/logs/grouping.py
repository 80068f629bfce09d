"""Prompt templates in a sample of calls, and whether the answers to each are a classification.

Calls of a template have the same messages before the last. The last message has a prefix and a suffix around the text
that varies. Calls without a system prompt may be of several templates: these are told apart by how their messages
begin, with the longest beginnings that many of them share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kcm.logs.call import LoggedCall
from kcm.logs.replies import LabelReader, label_reader
from kcm.logs.shared import shared_prefix, shared_suffix
from kcm.logs.template import Message, Template

MIN_CALLS = 30  # sampled calls of a template; fewer are left with all other calls
_SHARE = 0.01  # of the calls with the same first messages that a template has at least
_HEADS = (200, 64, 32)  # characters, in addition to the first line, by which the beginnings of messages are compared
_ALIKE = 0.5  # share of the labels that two groups have in common, from which on they are one template

Start: TypeAlias = tuple[tuple[str, str], ...]
"""Role and content of the messages before the last."""

CLASSIFICATION, FREE_TEXT = "classification", "free text"


@dataclass(frozen=True)
class Group:
    """A template in the log. `reader` finds labels in replies; None if they are no classification."""

    template: Template
    reader: LabelReader | None

    @property
    def kind(self) -> str:
        """What the answers are."""
        return CLASSIFICATION if self.reader else FREE_TEXT


@dataclass(frozen=True)
class _Sampled:
    """The last message of a call, and the reply."""

    content: str
    reply: str | None


def groups(calls: Sequence[LoggedCall]) -> list[Group]:
    """The templates of a sample of calls."""
    by_start: dict[Start, list[_Sampled]] = {}
    for call in calls:
        start = start_of(call)
        if start is not None:
            by_start.setdefault(start, []).append(_Sampled(str(call.messages[-1]["content"]), call.reply))
    return [group for start, sampled in by_start.items() for group in _split(start, sampled)]


def start_of(call: LoggedCall) -> Start | None:
    """The messages before the last; None if the call is not plain text that ends with a user's message."""
    if not call.messages or call.messages[-1].get("role") != "user":
        return None
    if not all(isinstance(message.get("content"), str) for message in call.messages):
        return None
    return tuple((str(message["role"]), str(message["content"])) for message in call.messages[:-1])


def _split(start: Start, sampled: Sequence[_Sampled]) -> list[Group]:
    """The templates among calls with the same first messages."""
    if len(sampled) < MIN_CALLS:
        return []
    contents = [call.content for call in sampled]
    before = shared_prefix(sorted(set(contents))) if len(set(contents)) > 1 else ""
    members = [call for call in sampled if call.content.startswith(before)]
    foreign = [call for call in sampled if not call.content.startswith(before)]
    parts = _by_head(members, len(before), max(MIN_CALLS, _SHARE * len(sampled)))
    whole = _group(start, members)
    inner = [whole] if len(parts) < 2 else [group for part in parts for group in _split(start, part)]
    if len(parts) >= 2 and _are_alike([whole, *inner]):
        inner = [whole]
    return inner + (_split(start, foreign) if len(foreign) < len(sampled) else [])


def _by_head(sampled: Sequence[_Sampled], skipped: int, fewest: float) -> list[list[_Sampled]]:
    """Calls whose messages begin alike, the longest beginnings first, and last all other calls."""
    rest, parts = list(sampled), []
    for cut in (_first_line, *(lambda text, size=size: text[:size] if len(text) > size else "" for size in _HEADS)):
        heads = {call.content: cut(call.content[skipped:]) for call in rest}
        counts = Counter(head for head in heads.values() if head.strip())  # of different messages
        for head in [head for head, votes in counts.most_common() if votes >= fewest]:
            parts.append([call for call in rest if heads[call.content] == head])
        taken = {head for head, votes in counts.items() if votes >= fewest}
        rest = [call for call in rest if heads[call.content] not in taken]
    return [*parts, rest] if rest else parts


def _first_line(text: str) -> str:
    """The first line, if more follow; or what comes before a colon in it."""
    head, mark, _ = text.partition("\n")
    if mark:
        return head
    head, mark, _ = text[: max(_HEADS)].partition(": ")
    return head if mark else ""


def _group(start: Start, sampled: Sequence[_Sampled]) -> Group:
    """The template of calls that are all of one."""
    contents = sorted({call.content for call in sampled})
    before = shared_prefix(contents) if len(contents) > 1 else ""
    rest = [content[len(before) :] for content in contents if content.startswith(before)]
    after = shared_suffix(rest) if len(contents) > 1 else ""
    messages = tuple(Message(role=role, content=content) for role, content in start)
    template = Template(messages=messages, before=before, after=after)
    texts = [call for call in sampled if call.content.startswith(before) and call.content.endswith(after)]
    different = dict.fromkeys((call.content, call.reply) for call in texts)  # a repeated call says nothing new
    replies = [reply for _, reply in different if reply is not None]
    reader = label_reader(replies)
    if reader:
        template = template.model_copy(update={"replies": reader.wording(replies), "reading": reader.reading})
    return Group(template, reader)


def _are_alike(candidates: Sequence[Group]) -> bool:
    """Whether groups classify by nearly the same labels: then their texts merely begin alike."""
    if any(candidate.reader is None for candidate in candidates):
        return False
    names = [{name.casefold() for name in candidate.reader.names} for candidate in candidates if candidate.reader]
    return all(len(names[0] & own) >= _ALIKE * len(names[0]) for own in names[1:])
