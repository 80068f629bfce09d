"""`kcm.savings`: how much of the bill of a log of calls a small model could have saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kcm.assets import default_assets
from kcm.bundle.bundle import Bundle
from kcm.bundle.models import ComputedBy
from kcm.certification.certificate import Certificate
from kcm.certification.ledger import Ledger
from kcm.config import parse_config
from kcm.encoders.runtime import computed_by, resolved
from kcm.errors import ConfigError, DataError
from kcm.inputs.location import Location
from kcm.labelling.encoding import Mapper, in_process, named_encoder
from kcm.large.adapters.openai import OpenAiConfig
from kcm.large.prices import listed_prices
from kcm.logs.config import SavingsConfig
from kcm.logs.forecast import TemplateForecast, Vectors, forecast
from kcm.logs.grouping import MIN_CALLS, Group
from kcm.logs.read import Log, Reading
from kcm.logs.tally import CallTally, counted
from kcm.user_folder import user_folder

_MONTH_S = 365.25 * 86_400 / 12
_SHORTEST_S = 86_400  # a log of less than a day says nothing of a month

Progress = Callable[[str, int], None]


@dataclass(frozen=True, eq=False)
class TemplateSavings:
    """What could be saved of one template; `forecast` is None if its answers are no classification, or too few."""

    group: Group
    tally: CallTally
    forecast: TemplateForecast | None

    @property
    def spend(self) -> float | None:
        """Dollars that its calls cost; None if no call has a cost or a price."""
        return None if self.tally.unpriced == self.tally.calls else self.tally.spend

    @property
    def is_told_apart(self) -> bool:
        """Whether the template has fixed text that distinguishes its requests from all others."""
        return bool(self.group.template.messages or self.group.template.before or self.group.template.after)

    @property
    def months(self) -> float | None:
        """Months from its first call to its last; None for less than a day."""
        if self.tally.begin is None or self.tally.end is None or self.tally.end - self.tally.begin < _SHORTEST_S:
            return None
        return (self.tally.end - self.tally.begin) / _MONTH_S

    @property
    def saves(self) -> float | None:
        """Dollars of this log's spend that the small model could have saved."""
        share = self.forecast.could_save if self.forecast else None
        return None if share is None or self.spend is None else share * self.spend

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        values: dict[str, Any] = {
            "kind": self.group.kind,
            "template": self.group.template.model_dump(mode="json"),
            "calls": self.tally.calls,
            "failed": self.tally.failed,
            "model": self.tally.model,
            "spend": self.spend,
            "unpriced": self.tally.unpriced,
            "labels": list(self.group.reader.names) if self.group.reader else [],
        }
        forecast = self.forecast
        if forecast is None:
            return values
        return values | {
            "could_save": forecast.could_save,
            "interval": None if forecast.could_save is None else list(forecast.interval),
            "bound": None if forecast.could_save is None else forecast.bound,
            "delta": forecast.delta,
            "look": forecast.look.number,
            "saves": self.saves,
            "saves_a_month": self.saves / self.months if self.saves is not None and self.months else None,
            "kept": forecast.kept,
            "stay": list(forecast.stay),
            "trained": len(forecast.split.train),
            "certified_on": len(forecast.split.certify),
            "by_time": forecast.split.by_time,
            "drift": {
                "detected": forecast.drift.detected,
                "p_value": forecast.drift.p_value,
                "label": forecast.drift.label,
                "early": forecast.drift.early,
                "late": forecast.drift.late,
            },
        }


@dataclass(frozen=True, eq=False)
class Savings:
    """The answer: one entry per template, the dearest first, and the calls without a template."""

    templates: tuple[TemplateSavings, ...]
    others: CallTally
    reading: Reading
    config: SavingsConfig
    vectors: Vectors

    @property
    def calls(self) -> int:
        """All calls of the log, failed ones included."""
        return self.others.calls + sum(template.tally.calls for template in self.templates)

    @property
    def spend(self) -> float | None:
        """Dollars of all calls with a cost or a price; None if there are none."""
        tallies = [self.others, *(template.tally for template in self.templates)]
        return (
            None if all(tally.unpriced == tally.calls for tally in tallies) else sum(tally.spend for tally in tallies)
        )

    @property
    def num_unpriced(self) -> int:
        """Calls without a cost and without a price."""
        return self.others.unpriced + sum(template.tally.unpriced for template in self.templates)

    @cached_property
    def best(self) -> TemplateSavings | None:
        """The template with the largest saving, in dollars or else in calls; None if nothing can be saved."""

        def worth(template: TemplateSavings) -> tuple[float, float]:
            share = (template.forecast.could_save if template.forecast else None) or 0.0
            return template.saves or 0.0, share * template.tally.calls

        best = max(self.templates, key=worth, default=None)
        return best if best is not None and worth(best)[1] > 0 else None

    @property
    def no_bundle(self) -> str | None:
        """Why there is no bundle; None if there is one."""
        if self.best is None:
            return "nothing could be saved"
        if self.vectors.encoder:
            return None
        advice = "leave out `--encoder words`" if self.config.encoder == "words" else "run `kcm assets`"
        return f"it needs a text encoder: {advice}"

    def bundle(self, server: OpenAiConfig) -> Bundle:
        """The best template's small model with its certificate; `server` is asked what it does not answer.

        Raises ConfigError if there is none.
        """
        if self.no_bundle or self.best is None or self.vectors.encoder is None:
            raise ConfigError(f"no bundle: {self.no_bundle}", where="savings")
        forecast = self.best.forecast
        assert forecast is not None
        assert forecast.trained is not None
        encoder = resolved(self.vectors.encoder, self.vectors.assets)
        return forecast.trained.side.bundle(
            forecast.trained.labels,
            encoder,
            encoder.identity(self.vectors.assets),
            server,
            forecast.decision,
            certificates={None: _certificate(forecast, self.config.max_loss)},
            certified_by=ComputedBy(encoder=computed_by(encoder, "cpu"), large=""),
            metrics={"savings": self.best.as_json()},
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values: `calls`, `templates`, and what could not be read."""
        return {
            "calls": self.calls,
            "failed": self.others.failed + sum(template.tally.failed for template in self.templates),
            "spend": self.spend,
            "unpriced": self.num_unpriced,
            "currency": "USD",
            "target": self.config.target,
            "templates": [template.as_json() for template in self.templates],
            "other_calls": self.others.calls,
            "other_spend": None if self.others.unpriced == self.others.calls else self.others.spend,
            "formats": dict(self.reading.formats),
            "unreadable": dict(self.reading.faults),
        }


def savings(
    log: str | Path,
    *,
    input: str | None = None,
    answer: str | None = None,
    ledger: Ledger | str | Path | None = None,
    assets: Path | None = None,
    mapper: Mapper = in_process,
    progress: Progress = lambda step, count: None,
    **options: Any,
) -> Savings:
    """How much of the bill of a log of calls a small model could have saved.

    Parameters
    ----------
    log : a file of requests and responses of OpenAI's interfaces, a spend log of LiteLLM, an export of Langfuse, spans
        of OpenTelemetry, or a table with a column of inputs and one of answers; local, s3:// or gs://
    input, answer : these columns of a table, if their names are unusual
    ledger : folder of the ledger of looks; by default in the user's folder
    progress : told of a step and how much of it is done
    options : the fields of `SavingsConfig`, such as `target` and `delta`

    No model is called and nothing is paid. Raises DataError for a log without a call.
    """
    config = parse_config(SavingsConfig, options, where="kcm savings", name="option")
    location = Location.of(log)
    counts = counted(Log(location, input, answer), listed_prices(), config.seed, progress)
    if not counts.others.calls and not counts.groups:
        faults = "; ".join(f"{count:,} {reason}" for reason, count in counts.reading.faults.most_common(3))
        hint = "For a table name its columns by --input and --answer"
        raise DataError(f"no row is a call of an LLM{f' ({faults})' if faults else ''}", where=str(location), hint=hint)
    assets = assets or default_assets()
    vectors = Vectors(named_encoder(config.encoder, assets), assets, mapper)
    book = ledger if isinstance(ledger, Ledger) else Ledger(Path(ledger or user_folder() / "ledger"))
    templates = []
    for number, (group, tally) in enumerate(counts.groups, 1):
        progress("training on templates", number)
        rows = tally.rows.items()
        seen = len(rows) >= MIN_CALLS
        templates.append(TemplateSavings(group, tally, forecast(rows, config, book, vectors) if seen else None))
    return Savings(tuple(templates), counts.others, counts.reading, config, vectors)


def _certificate(forecast: TemplateForecast, max_loss: float) -> Certificate:
    """The certificate of a bundle."""
    return Certificate(
        method="regret",
        epsilon=max_loss,
        delta=forecast.delta,
        decision=forecast.decision.decision,
        threshold=forecast.decision.threshold,
        bound=forecast.bound,
        valid=True,
        call_rate=1 - forecast.share,
        searched=forecast.decision,
        certified=forecast.decision,
        num_rows=len(forecast.split.certify),
        num_units=len(forecast.split.certify),
        fewest_units=forecast.fewest,
        reason="the lowest certified threshold is deployed",
        statement="Of calls of the logged template to come, if they are drawn like those of the log, and if the logged "
        "model gets the caller's own request for all that the small model does not answer, as by `kcm serve`",
    )
