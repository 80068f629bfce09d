"""Traffic replayed through a cascade in this process, and logged as the service logs what it answers.

What is learned, certified and promoted afterwards is the loop's own work.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from kcm.api.cascade import Cascade
from kcm.bundle.answers import Answer, Failure, Input, Judgement
from kcm.errors import DataError
from kcm.large import Item, LargeAnswer
from kcm.tasks.units import unit_digest
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin, Payload

FoundT = TypeVar("FoundT")


@dataclass
class Replay:
    """A cascade that answers requests and logs them; `share` of what it keeps is audited.

    `version` is the name of the version that answers, `kept` how much of the inputs is stored.
    """

    cascade: Cascade
    log: DecisionLog
    version: str
    share: float
    kept: Literal["none", "text", "all"] = "text"
    seed: int = 0
    _sequence: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def answer(self, inputs: Sequence[Input]) -> str:
        """Answer one request, and audit it; gives the id of the request.

        Raises DataError where an input cannot be read, or neither side answers it.
        """
        side, request = self.cascade.small_side, str(uuid.uuid4())
        judgements = _without_failures(side.judge(inputs))
        large = self.cascade.large_model.answer(side.questions(inputs, judgements))
        answers = _without_failures(side.answers(judgements, large))
        kept = [place for place, answer in enumerate(answers) if answer.route == "small"]
        drawn = [place for place in kept if self._random.random() < self.share]
        escalated = [place for place, answer in enumerate(answers) if answer.route != "small"]
        probabilities = {place: given.probabilities for place, given in zip(escalated, large, strict=True)}
        self.log.add_decisions(
            [
                self._decision(request, place, inputs, judgements, answers, place in drawn, probabilities.get(place))
                for place in range(len(inputs))
            ]
        )
        if drawn:
            self._audit(request, drawn, self.cascade.large_model.answer([Item("", inputs[n].content) for n in drawn]))
        return request

    def feedback(self, request: str, labels: Mapping[int, str]) -> None:
        """Labels of people for items of a request."""
        self.log.add_feedback(request, None, [Feedback(place, label) for place, label in labels.items()])

    def _decision(
        self,
        request: str,
        place: int,
        inputs: Sequence[Input],
        judgements: Sequence[Judgement],
        answers: Sequence[Answer],
        drawn: bool,
        probabilities_C: NDArray[np.floating] | None,
    ) -> LoggedDecision:
        bundle, given, judgement = self.cascade.small_side.bundle, inputs[place], judgements[place]
        by_large = answers[place].route == "large"
        return LoggedDecision(
            Origin(request),
            place,
            self.version,
            answers[place].route,
            self.share,
            drawn,
            small_label=bundle.answer_names[judgement.label],
            large_label=answers[place].label if by_large else None,
            large_probabilities_C=probabilities_C if by_large else None,
            gate_score=judgement.gate_score,
            task=given.task,
            unit=unit_digest(given.content, given.group),
            large_identity=bundle.large_identity,
            payload=Payload.of(given.content, judgement.features_D, self.kept),
            sequence=next(self._sequence),
        )

    def _audit(self, request: str, drawn: Sequence[int], answers: Sequence[LargeAnswer]) -> None:
        names = self.cascade.small_side.bundle.answer_names
        given = dict(zip(drawn, answers, strict=True))
        labels = {place: None if each.label is None else names[each.label] for place, each in given.items()}
        heard = {place: each.probabilities for place, each in given.items() if each.probabilities is not None}
        self.log.finish_audits(request, labels, heard)


def _without_failures(found: Sequence[FoundT | Failure]) -> list[FoundT]:
    """What was found; DataError that names the first input without it."""
    good = []
    for place, each in enumerate(found):
        if isinstance(each, Failure):
            raise DataError(f"input {place} failed: {each.reason}", where="replay")
        good.append(each)
    return good
