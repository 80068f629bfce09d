"""The looks of one labelling job in the ledger of certificates, and its draws on disk.

A job that was killed finishes the draw that it began, from the very ranking that was drawn from. A draw that is planned
again, with some of its answers known, would certify nothing.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from kcm.certification.ledger import Ledger, Look, question_delta, unit_hashes
from kcm.errors import ArtefactError
from kcm.labelling.config import LabelConfig
from kcm.local_files import replace_durably

Arrays = dict[str, NDArray[Any]]


class DrawFile:
    """The draws of one job, each a file of arrays in a folder of its own; number 0 is the choice before the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, number: int) -> Arrays | None:
        """Draw `number`, None if it has not begun. Raises ArtefactError if it is damaged."""
        path = self._path(number)
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
            hint = "Delete its folder to draw again, by the next look; paid answers are kept"
            raise ArtefactError(f"a draw is damaged: {error}", where=str(path), hint=hint) from None

    def write(self, number: int, arrays: Arrays) -> None:
        """Put a draw on disk before it is bought."""
        path = self._path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}")
        np.savez_compressed(draft, **arrays)  # type: ignore[arg-type]
        replace_durably(draft, path)

    def _path(self, number: int) -> Path:
        return self._folder / f"draw_{number}.npz"


def digest_of(arrays: Arrays) -> str:
    """The digest of a draw."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# Numbers of draws: two for agreement, then one for guarantees of labels.
FIRST_DRAW, SECOND_DRAW, CLASS_DRAW = 1, 2, 3
_DRAWS_OF = {False: (FIRST_DRAW, CLASS_DRAW), True: (SECOND_DRAW,)}  # of a job's first look, and of its second


class JobLooks:
    """The looks of one job. They are recorded when a draw begins: without a draw nothing of delta is used.

    `texts` name the units, `digest` everything that the job depends on, and `purpose` describes it for people. `say`
    receives lines about further looks. The ledger records which draw a look has begun. If that draw is not among
    `draws`, it cannot be finished, and the job takes another look: the price of one look never buys two draws.
    """

    def __init__(
        self,
        ledger: Ledger,
        texts: Iterable[str],
        delta: float,
        digest: str,
        purpose: str,
        say: Callable[[str], None],
        draws: DrawFile | None = None,
    ) -> None:
        self._ledger, self._units, self._delta, self._say = ledger, unit_hashes(texts), delta, say
        self._digest, self._purpose, self._draws = digest, purpose, draws
        self._num_lost = {again: self._lost(again) for again in (False, True)}
        self._next = self._preview(again=False)
        self._taken: dict[bool, Look] = {}

    def take(self, *, again: bool = False) -> Look:
        """The first look of the job, or the second; repeating either costs nothing."""
        digest = self._named(again, self._num_lost[again])
        self._taken[again] = self._ledger.look(self._units, delta=self._delta, digest=digest, purpose=self._purpose)
        return self._taken[again]

    def taken(self, *, again: bool = False) -> Look | None:
        """The first look, or the second; None if the job has not taken it."""
        return self._taken.get(again)

    def forecast(self, *, again: bool = False) -> float:
        """What of delta the first look may spend, or the second, as far as known before it is taken."""
        return question_delta(self._delta, self._next.number + 1) if again else self._next.spend

    def spend(self, *, again: bool = False) -> float:
        """What of delta a look may spend, once it is taken."""
        look = self.take(again=again)
        if again:
            self._say(f"There is money for a draw that proves the target. {look.sentence}")
        return look.spend

    def stamp(self, *, again: bool) -> str:
        """Names the look in the file of its draw."""
        look = self._preview(again=again)
        return f"{look.digest} {look.number} {look.spend!r}"

    def begin(self, number: int, arrays: Arrays, *, again: bool) -> bool:
        """Record the draw of a look before it is bought; False if the look has begun another one: the next follows."""
        if self._ledger.begin(self._taken[again], number, digest_of(arrays)):
            return True
        self._num_lost[again] += 1
        self._next = self._preview(again=False)
        self._say(f"Another start has begun the draw of this look. {self._preview(again=again).sentence}")
        return False

    @property
    def has_begun(self) -> bool:
        """Whether a draw of this look may have been bought from."""
        look = self._preview(again=False)
        return any(self._ledger.begun(look, number) for number in _DRAWS_OF[False])

    def _preview(self, *, again: bool) -> Look:
        digest = self._named(again, self._num_lost[again])
        return self._ledger.preview(self._units, delta=self._delta, digest=digest)

    def _named(self, again: bool, num_lost: int) -> str:
        """The digest of a look; `num_lost` looks before it have begun draws that are lost."""
        return f"{self._digest}{' again' if again else ''}{f' {num_lost + 1}' if num_lost else ''}"

    def _lost(self, again: bool) -> int:
        """How many looks of earlier starts have begun draws that are not here."""
        looks, num_lost = {look.digest: look for look in self._ledger.looks()}, 0
        while (look := looks.get(self._named(again, num_lost))) and not all(
            self._holds(look, number) for number in _DRAWS_OF[again]
        ):
            num_lost += 1
        return num_lost

    def _holds(self, look: Look, number: int) -> bool:
        """Whether the look's draw of this number is here, if it has begun one."""
        if (digest := self._ledger.begun(look, number)) is None:
            return True
        arrays = self._draws.read(number) if self._draws else None
        return arrays is not None and digest_of(arrays) == digest

    @property
    def salt(self) -> tuple[int, ...]:
        """Seeds the draws of this job besides its seed; empty for the first look on these texts.

        A later job, such as one with another target, is chosen in knowledge of earlier draws: its own must be new.
        """
        look, num_lost = self._taken[False], self._num_lost[True]
        return () if look.number == 1 and not num_lost else (look.number, int(self._digest[:16], 16), num_lost)

    @property
    def earlier(self) -> str:
        """A line about the last other job on these texts; empty if there was none."""
        purposes = [
            look.purpose
            for look in self._ledger.looks()
            if look.question == self._next.question and not look.digest.startswith(self._digest)
        ]
        return f"An earlier look was by: {purposes[-1]}. {self._next.sentence}" if purposes else ""


def described(columns: Sequence[str], llms: Sequence[Any], config: LabelConfig) -> str:
    """A job in one phrase: who answers, the target and the seed."""
    names = columns or ["a function" if callable(llm) else llm.model for llm in llms]
    target = "" if config.target is None else f", target {config.target:g}"
    return f"label, {' and '.join(names)}{target}, seed {config.seed}"
