"""The expected cost of a server's answers, printed before the first question, and the cost paid, printed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat

from rich.markup import escape

from kcm.bundle.bundle import Bundle
from kcm.large import Item, LargeConfig, LargeModel
from kcm.large.base import Estimate, PaidModel
from pipelines.batch.inputrows import InputReader, InputRows
from pipelines.progress import Reporter
from pipelines.store.sequence import contents_of

MOST_PRICED = 20_000  # rows that are read for the price; for more rows it is extrapolated


@contextmanager
def paying(
    model: LargeModel, large: LargeConfig, price: Callable[[PaidModel], str], reporter: Reporter
) -> Iterator[None]:
    """A block that asks a server: the `price` is printed before, the amount paid after; then the model is closed."""
    if not isinstance(model, PaidModel):
        yield
        return
    calls, currency = model.spent()
    before = f"paid before in this store: {calls:,} calls{_money(currency)}"
    reporter.say(f"asking {escape(large.location)}: {price(model)}; {before}")
    try:
        yield
        calls_now, currency_now = model.spent()
        paid = f"{calls_now - calls:,} calls{_money(currency_now - currency)}"
        reporter.say(f"the large model was paid for {paid}")
    finally:
        model.close()


def price_of_all(model: PaidModel, items: Iterable[Sequence[Item]]) -> str:
    """The expected cost of the answers to all items, as text."""
    total, num_rows = _estimate(model, items)
    return (
        f"{total.calls:,} calls for {num_rows:,} rows, about {total.tokens:,.0f} tokens{_money(total.currency)}"
        f"{_money(total.most, ' at most')}"
    )


def price_of_escalated(model: PaidModel, bundle: Bundle, files: Sequence[InputRows]) -> str:
    """The expected and the highest cost of a prediction, as text, extrapolated from its first rows.

    It is not known yet which rows escalate, so the certified call rate is assumed. Stored answers count as free only
    for questions without a prompt of the small side, because such prompts are not known yet either.
    """
    total, num_priced = _estimate(model, _first_items(files))
    num_rows = sum(rows.num_rows for rows in files)
    scale, rate = num_rows / max(num_priced, 1), _call_rate(bundle)
    return (
        f"about {rate * scale * total.calls:,.0f} calls for {num_rows:,} rows, at a call rate of {rate:.0%}"
        f"{_money(rate * scale * total.currency)}{_money(scale * total.most, ' at most')}"
    )


def _first_items(files: Iterable[InputRows]) -> Iterator[list[Item]]:
    left = MOST_PRICED
    for rows in files:
        count = min(rows.num_rows, left)
        left -= count
        for table in InputReader()(rows, 0, count) if count else ():
            yield list(map(Item, repeat(""), contents_of(table)))


def _estimate(model: PaidModel, items: Iterable[Sequence[Item]]) -> tuple[Estimate, int]:
    """The cost of the answers to all items, and their number."""
    total, num_items = Estimate(), 0
    for some in items:
        total, num_items = total + model.estimate(some), num_items + len(some)
    return total, num_items


def _money(currency: float, how: str = "") -> str:
    """An amount as the end of a sentence's part, such as `, at most 1.25`; empty if it is nothing."""
    return f",{how} {currency:,.4g}" if currency else ""


def _call_rate(bundle: Bundle) -> float:
    """Share of rows that escalate, by the certify rows; 1 if unknown."""
    certificate, decision = bundle.certificates.get(None), bundle.policy.decision.decision
    if decision == "keep_all" and not bundle.policy.task_decisions:
        return certificate.call_rate if certificate and bundle.policy.farthest is not None else 0.0
    return certificate.call_rate if certificate and decision == "threshold" else 1.0
