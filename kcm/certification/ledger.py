"""The ledger of looks: every certificate on the same question spends part of one delta.

A certificate proves nothing if it can be repeated with another seed, split, column or subset of the rows until it
passes. So a ledger charges the *question*: all tables that share rows. Before outcomes are used, a look writes down
which units its table has, and gets its number v in the question. It may spend `question_delta(delta, v)`. These shares
sum to delta over all v, so all certificates of a question hold together with probability 1 - delta.

A ledger is a folder, or a prefix of a bucket:

    looks/000000000001      look 1 of the ledger, as JSON: its question, its number there, what it may spend
    units/SHA256            sorted 64-bit hashes of units, 8 bytes each; looks at the same table share one file
    draws/SHA256            digest of a random draw that a look has begun, named by the look and the draw's number

The ledger cannot notice that it was deleted or copied, that texts were edited to look new, or that disjoint tables
come from one source.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kcm.errors import ArtefactError
from kcm.local_files import create_durably

Hashes: TypeAlias = NDArray[np.uint64]
Units: TypeAlias = Hashes | Mapping[str, Hashes] | None

CONTENT, GROUP = "content", "group"  # kinds of units
FIRST = 0.8  # share of delta for the first look at a question
SHARED = 0.1  # tables that share this part of the smaller one are one question
_LOOKS, _UNITS, _DRAWS = "looks", "units", "draws"
_KEY = b"kcm ledger of looks"


def look_delta(delta: float, number: int) -> float:
    """6 delta / (pi^2 v^2) for attempt v = 1, 2, ... of a lineage, which may need many attempts."""
    return 6 * delta / (math.pi * number) ** 2


def question_delta(delta: float, number: int) -> float:
    """The part of delta that look v = 1, 2, ... at a question may spend: 80% first, then 12%, 3%, 1.4% and so on.

    The first look is usually the only one. A geometric split would leave nothing for the tenth look, and merged
    questions have high numbers, so later looks divide the remaining 20% as `look_delta` divides a lineage's delta.
    """
    return FIRST * delta if number == 1 else look_delta((1 - FIRST) * delta, number - 1)


def unit_hashes(names: Iterable[str]) -> Hashes:
    """Keyed 64-bit hashes (BLAKE2b) of the names of units, sorted, each once."""
    hashes = (hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8, key=_KEY).digest() for name in names)
    return np.unique(np.frombuffer(b"".join(hashes), "<u8")).astype(np.uint64)


@dataclass(frozen=True)
class Look:
    """One look: its question, its number in the question (from 1), and the part of the requested delta it may spend.

    `digest` covers everything that the look depends on, from the rows and scores to the request and the seed. `purpose`
    is for people. `units` are the files of the look's units by kind. `merged` are the earlier questions that it joins.
    """

    question: str
    number: int
    delta: float
    spend: float
    digest: str
    purpose: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    merged: tuple[str, ...] = ()
    grows: bool = False

    @classmethod
    def of(cls, entry: Any) -> Self:
        """The look from its JSON value. Raises ValueError or TypeError if it is damaged."""
        look = cls(**entry | {"units": dict(entry["units"]), "merged": tuple(entry["merged"])})
        if look.number < 1 or not 0 < look.spend <= look.delta:
            raise ValueError("not a look")
        return look

    @property
    def next_spend(self) -> float:
        """What the next look at the question may spend."""
        return (look_delta if self.grows else question_delta)(self.delta, self.number + 1)

    @property
    def sentence(self) -> str:
        """What the look costs and what remains for later looks."""
        ordinal = "First look" if self.number == 1 else f"Look {self.number}"
        spends = look_delta if self.grows else question_delta
        remaining_share = 1 - sum(spends(1.0, number) for number in range(1, self.number + 1))
        return (
            f"{ordinal} at these rows: uses {100 * self.spend / self.delta:.3g}% of delta {self.delta:g};"
            f" later looks share {100 * remaining_share:.3g}%"
        )


class Place(Protocol):
    """The storage of a ledger. `create` is durable, and only one of several writers of a name succeeds."""

    @property
    def uri(self) -> str:
        """The storage's name in messages."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless it exists; returns whether it was written."""

    def read(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""

    def list(self, name: str) -> Iterator[Named]:
        """The files below a name, in any order."""


class Named(Protocol):
    """A listed file."""

    @property
    def name(self) -> str:
        """Parts joined by slashes."""


@dataclass(frozen=True)
class Folder:
    """A local folder that stores a ledger."""

    path: Path

    @property
    def uri(self) -> str:
        """The path."""
        return str(self.path)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless it exists. ArtefactError if the folder cannot be written."""
        try:
            return create_durably(self.path / name, content)
        except OSError as error:
            hint = "Name a new folder, or the folder of an existing ledger"
            raise ArtefactError(f"cannot write the ledger: {error.strerror}", where=self.uri, hint=hint) from None

    def read(self, name: str) -> bytes:
        """The content."""
        return (self.path / name).read_bytes()

    def list(self, name: str) -> Iterator[Path]:
        """The files in a sub-folder, without drafts."""
        return (path for path in (self.path / name).glob("[!.]*"))


@dataclass
class _Question:
    """The looks at one question so far: their number, the kinds of units of each look, and the unit files by kind."""

    num_looks: int = 0
    grows: bool = True  # whether all looks spent as those of a growing question
    kinds: set[frozenset[str]] = field(default_factory=set)
    files: dict[str, set[str]] = field(default_factory=dict)

    def add(self, other: _Question) -> None:
        self.num_looks += other.num_looks
        self.grows &= other.grows
        self.kinds |= other.kinds
        for kind, files in other.files.items():
            self.files.setdefault(kind, set()).update(files)


class Ledger:
    """A ledger of looks by question, in a folder or in another place with create-if-absent.

    A look belongs to an earlier question if it shares at least a tenth of its units (of the smaller side) with the
    union of all units of that question. If it belongs to several questions, they become one, and its number is the sum
    of their looks + 1. Units are compared by kind: contents with contents, groups with groups, and ids with ids if one
    of the looks has no contents. Two looks without a common kind count as one question, because nothing distinguishes
    them. A look without any units therefore belongs to every question of the ledger.
    """

    def __init__(self, place: str | Path | Place) -> None:
        self._place: Place = Folder(Path(place)) if isinstance(place, str | Path) else place

    def look(self, units: Units, *, delta: float, digest: str, purpose: str, grows: bool = False) -> Look:
        """Write down a look before outcomes are used, and return it; repeating an identical look costs nothing.

        A question that `grows` from its first look on spends as a lineage does (`look_delta`): later looks keep more.

        `units` are the hashes of ALL units of the table (`unit_hashes`), not only of its certify rows; a plain array
        holds contents. Two simultaneous looks get different numbers. Raises ArtefactError if the ledger is damaged.
        """
        by_kind = _by_kind(units)
        files = {kind: self._write_units(hashes) for kind, hashes in by_kind.items()}
        while True:
            looks = self.looks()
            look = self._next(looks, by_kind, files, delta, digest, purpose, grows)
            content = json.dumps(asdict(look), allow_nan=False).encode()
            if look in looks or self._place.create(_look_name(len(looks) + 1), content):
                return look

    def preview(self, units: Units, *, delta: float, digest: str, grows: bool = False) -> Look:
        """The look that `look` would return; writes nothing."""
        by_kind = _by_kind(units)
        files = {kind: hashlib.sha256(_pack(hashes)).hexdigest() for kind, hashes in by_kind.items()}
        return self._next(self.looks(), by_kind, files, delta, digest, "", grows)

    def begin(self, look: Look, number: int, draw: str) -> bool:
        """Record the digest of a look's random draw before anything is drawn; False if the look has begun another one.

        A look is free to repeat, since all of it is decided before outcomes are used. A draw is not: of several draws
        somebody could choose the best.
        """
        return self._place.create(_draw_name(look, number), draw.encode()) or self.begun(look, number) == draw

    def begun(self, look: Look, number: int) -> str | None:
        """The digest of the draw that a look has begun; None if it has not."""
        try:
            return self._place.read(_draw_name(look, number)).decode()
        except FileNotFoundError:
            return None

    def looks(self) -> list[Look]:
        """All looks, the oldest first. Raises ArtefactError if the ledger is damaged."""
        names = sorted(entry.name.rpartition("/")[2] for entry in self._place.list(_LOOKS))
        if names != [f"{number:012d}" for number in range(1, len(names) + 1)]:
            raise self._damage(f"{_LOOKS} are missing")
        return [self._read_look(f"{_LOOKS}/{name}") for name in names]

    def _next(
        self,
        looks: list[Look],
        by_kind: Mapping[str, Hashes],
        files: Mapping[str, str],
        delta: float,
        digest: str,
        purpose: str,
        grows: bool,
    ) -> Look:
        for look in looks:
            if (look.digest, look.delta, look.units) == (digest, delta, files):
                return look
        questions = _questions(looks)
        touched = [name for name, question in questions.items() if self._touches(question, by_kind)]
        number = sum(questions[name].num_looks for name in touched) + 1
        name = touched[0] if touched else f"question {len(looks) + 1}"
        # From the second look on, a growing question spends more than another one: after a first look of 80% it could
        # exceed delta.
        grows = grows and all(questions[earlier].grows for earlier in touched)
        spend = look_delta(delta, number) if grows else question_delta(delta, number)
        return Look(name, number, delta, spend, digest, purpose, dict(files), tuple(touched[1:]), grows)

    def _touches(self, question: _Question, units: Mapping[str, Hashes]) -> bool:
        if any(kinds.isdisjoint(units) for kinds in question.kinds):
            return True
        kinds = [kind for kind in units if kind in question.files]
        return any(_shares(units[kind], self._union(question.files[kind])) for kind in kinds)

    def _union(self, files: Iterable[str]) -> Hashes:
        arrays = [self._read_units(file) for file in files]
        return np.unique(np.concatenate(arrays)) if arrays else np.empty(0, np.uint64)

    def _write_units(self, hashes: Hashes) -> str:
        packed = _pack(hashes)
        name = hashlib.sha256(packed).hexdigest()
        self._place.create(f"{_UNITS}/{name}", packed)
        return name

    def _read_units(self, file: str) -> Hashes:
        name = f"{_UNITS}/{file}"
        try:
            packed = self._place.read(name)
        except FileNotFoundError:
            raise self._damage(f"{name} is missing") from None
        if hashlib.sha256(packed).hexdigest() != file:
            raise self._damage(f"{name} was changed")
        return np.frombuffer(packed, "<u8").astype(np.uint64)

    def _read_look(self, name: str) -> Look:
        try:
            return Look.of(json.loads(self._place.read(name)))
        except (ValueError, TypeError, KeyError, FileNotFoundError):
            raise self._damage(f"{name} cannot be read") from None

    def _damage(self, fault: str) -> ArtefactError:
        hint = "Restore it from a backup, or certify on fresh rows with another ledger"
        return ArtefactError(f"the ledger of looks is damaged: {fault}", where=self._place.uri, hint=hint)


def _by_kind(units: Units) -> dict[str, Hashes]:
    """The units by kind, each kind sorted and without duplicates; kinds without units are dropped."""
    kinds = {} if units is None else units if isinstance(units, Mapping) else {CONTENT: units}
    return {kind: np.unique(hashes.astype(np.uint64)) for kind, hashes in kinds.items() if len(hashes)}


def _questions(looks: Iterable[Look]) -> dict[str, _Question]:
    """The questions after all these looks, by name."""
    questions: dict[str, _Question] = {}
    for look in looks:
        question = questions.setdefault(look.question, _Question())
        for name in look.merged:
            question.add(questions.pop(name, _Question()))
        question.add(
            _Question(1, look.grows, {frozenset(look.units)}, {kind: {file} for kind, file in look.units.items()})
        )
    return questions


def _shares(first: Hashes, second: Hashes) -> bool:
    """Whether two sets share at least a tenth of the smaller one."""
    num_shared = len(np.intersect1d(first, second, assume_unique=True))
    return num_shared > 0 and num_shared >= SHARED * min(len(first), len(second))


def _pack(hashes: Hashes) -> bytes:
    return hashes.astype("<u8").tobytes()


def _look_name(number: int) -> str:
    return f"{_LOOKS}/{number:012d}"


def _draw_name(look: Look, number: int) -> str:
    names = f"{look.question}\0{look.number}\0{look.digest}\0{number}"
    return f"{_DRAWS}/{hashlib.sha256(names.encode()).hexdigest()}"
