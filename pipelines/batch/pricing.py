"""What the escalated rows of a prediction will cost, said before the first is asked, and what they did cost."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat

from rich.markup import escape

from kcm.bundle.bundle import Bundle
from kcm.large import Item
from kcm.large.base import Estimate, PaidModel
from pipelines.batch.inputrows import InputReader, InputRows
from pipelines.progress import Reporter
from pipelines.store.sequence import contents_of

MOST_PRICED = 20_000  # rows that are read; the price of more rows is extrapolated


def say_price(model: PaidModel, bundle: Bundle, files: Iterable[InputRows], reporter: Reporter) -> tuple[int, float]:
    """Say what the rows will take at the certified call rate, and at most; calls and currency of the store so far.

    Which rows escalate is not known yet. Answers of the store are taken for nothing where no prompt of the small side
    goes along, whose words are not known yet either.
    """
    total, num_rows, num_priced = Estimate(), 0, 0
    for rows in files:
        count = min(rows.num_rows, MOST_PRICED - num_priced)
        num_rows, num_priced = num_rows + rows.num_rows, num_priced + count
        for table in InputReader()(rows, 0, count) if count else ():
            total += model.estimate(list(map(Item, repeat(""), contents_of(table))))
    scale = num_rows / max(num_priced, 1)
    rate, (calls, currency) = _call_rate(bundle), model.spent()
    price = f"{money(rate * scale * total.currency)}{money(scale * total.most, ' at most')}"
    reporter.say(
        f"asking {escape(bundle.large.location)}: about {rate * scale * total.calls:,.0f} calls for {num_rows:,} rows,"
        f" at a call rate of {rate:.0%}{price}; paid before in this store: {calls:,} calls{money(currency)}"
    )
    return calls, currency


def say_paid(model: PaidModel, before: tuple[int, float], reporter: Reporter) -> None:
    """Say what was paid since `before`."""
    calls, currency = (now - then for now, then in zip(model.spent(), before, strict=True))
    reporter.say(f"the large model was paid for {calls:,} calls{money(currency)}")


def money(currency: float, how: str = "") -> str:
    """An amount as the end of a sentence's part, such as `, at most 1.25`; empty if it is nothing."""
    return f",{how} {currency:,.4g}" if currency else ""


def _call_rate(bundle: Bundle) -> float:
    """Share of rows that escalate, by the certify rows; 1 if unknown."""
    certificate, decision = bundle.certificates.get(None), bundle.policy.decision.decision
    if decision == "keep_all" and not bundle.policy.task_decisions:
        return 0.0
    return certificate.call_rate if certificate and decision == "threshold" else 1.0
