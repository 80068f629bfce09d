"""People at the service's inbox: what they are asked, and what they say, in the log before it is acknowledged."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from pipelines.serve.config import ServeConfig
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.inbox import AnsweredError, InboxItem, InboxView, UnknownItemError, UnknownLabelError
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.schemas import AskedItem, LabelsCounted, LabelsResponse, LabelStanding, Refusal

MAX_SHOWN = 20  # items of one look at the inbox; each may hold a picture


class Labelling:
    """The inbox of the door's application; `log` is None where nothing is stored. Every call may raise Refusal."""

    def __init__(self, log: LogWriter | None, config: ServeConfig) -> None:
        self._log, self._config = log, config

    async def inbox(self, caller: str | None, limit: int) -> LabelsResponse:
        """The labels that are asked for, and the first open items."""
        log = self._log_for(caller)
        try:
            view = await log.call(DecisionLog.inbox, limit)
        except LogUnavailableError:
            raise self._unavailable("the log cannot be read") from None
        if view is None:
            return LabelsResponse(num_open=0, num_labelled=0, num_skipped=0, version=None, labels=[], items=[])
        return LabelsResponse(
            **_counted(view),
            version=view.asked.version,
            labels=list(view.asked.labels),
            items=[_shown(each) for each in view.items],
        )

    async def answer(self, caller: str | None, answers: Mapping[str, str | None], *, again: bool) -> LabelsCounted:
        """Store labels by the ids of their items, None for one that is skipped; `again` lets answers be changed.

        403 for callers that may not label, 404 for items that are not asked for, 422 for labels outside the list, 409
        for items with another answer, 503 while the log takes none.
        """
        log = self._log_for(caller)
        try:
            await log.call(DecisionLog.answer_inbox, answers, again=again)
            view = await log.call(DecisionLog.inbox, 0)
        except UnknownItemError as error:
            raise Refusal(404, f"item {error}: no label of it is asked for; see /v1/labels") from None
        except UnknownLabelError as error:
            raise Refusal(422, f"item {error}: the label is not in the list; see /v1/labels") from None
        except AnsweredError as error:
            raise Refusal(409, f"item {error}: it has another answer already; `again` replaces it") from None
        except LogUnavailableError:
            raise self._unavailable("the log is not available; nothing may be stored") from None
        return LabelsCounted(**_counted(view)) if view else LabelsCounted(num_open=0, num_labelled=0, num_skipped=0)

    def _log_for(self, caller: str | None) -> LogWriter:
        """The log, for a caller who may see what others have sent."""
        if self._log is None:
            raise Refusal(404, "labels are not kept here: serve.feedback.url is not set")
        if caller is None and not self._config.listens_on_loopback:
            raise Refusal(403, "labels need keys where the service listens beyond loopback: see serve.auth.labellers")
        if caller is not None and caller not in self._config.auth.labellers:
            raise Refusal(403, "this key may not see what others have sent: serve.auth.labellers lists those that may")
        return self._log

    def _unavailable(self, why: str) -> Refusal:
        return Refusal(503, why, self._config.retry_after_s)


def _counted(view: InboxView) -> dict[str, Any]:
    standing = view.standing
    shown = LabelStanding(
        certified=standing.certified, stricter=standing.stricter, bound=standing.bound, epsilon=standing.epsilon
    )
    return {
        "num_open": standing.num_open,
        "num_labelled": standing.num_labelled,
        "num_skipped": standing.num_skipped,
        "standing": shown if view.asked.tests else None,
    }


def _shown(item: InboxItem) -> AskedItem:
    return AskedItem(
        id=item.id,
        position=item.position,
        task=item.task,
        text=item.text,
        image=item.image and base64.b64encode(item.image).decode(),
        small_label=item.small_label,
        large_label=item.large_label,
        answered_at=item.answered_at,
    )
