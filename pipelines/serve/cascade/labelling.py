"""What callers and people say of items, by feedback and at the inbox: in the log before it is acknowledged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.config import RETRY_AFTER_S, ServeConfig
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, RejectedError
from pipelines.serve.log.inbox import InboxView, Standing
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics
from pipelines.serve.release import Releases
from pipelines.serve.schemas import FeedbackResponse, Refusal

MAX_SHOWN = 20  # items of one look at the inbox; each may hold a picture


class Labelling:
    """Labels of the door's application; `log` is None where nothing is stored.

    Every call may raise Refusal: 404 where nothing is stored, 503 while the log takes none. The inbox is shown to those
    alone who may see what others have sent, else 403.
    """

    def __init__(
        self, releases: Releases[CascadeVersion], config: ServeConfig, log: LogWriter | None, metrics: ServeMetrics
    ) -> None:
        self._releases, self._config, self._log, self._metrics = releases, config, log, metrics

    async def feedback(self, request_id: str, caller: str | None, labels: Sequence[Feedback]) -> FeedbackResponse:
        """Store true labels.

        404 for what was not answered for this caller, 409 where there are other labels, 422 for labels that the model
        does not know, unless the configuration keeps them, 429 for too many of those.
        """
        log, version = self._stored(), self._releases.current
        known = version.small_side.bundle.label_names
        unknown = [index for index, label in enumerate(labels) if label.label not in known]
        if unknown and self._config.feedback.new_labels == "refuse":
            raise Refusal(422, f"labels[{unknown[0]}].label: the model has no such label; see /v1/model")
        labels = [replace(label, new=True) if index in unknown else label for index, label in enumerate(labels)]
        with self._refusing():
            await log.add_feedback(request_id, caller, labels)
        if version.auditor:
            version.auditor.monitor.schedule()
        return FeedbackResponse(request_id=request_id, stored=len(labels))

    async def inbox(self, caller: str | None, limit: int) -> InboxView:
        """The labels that are asked for, and the first open items."""
        log = self._shown_to(caller)
        return await self._view(log, limit)

    async def answer(self, caller: str | None, answers: Mapping[str, str | None], *, again: bool) -> Standing:
        """Store labels by the ids of their items, None for one that is skipped; `again` lets answers be changed.

        404 for items and 422 for labels that are not asked for, 409 for items with another answer.
        """
        log = self._shown_to(caller)
        with self._refusing():
            await log.call(DecisionLog.answer_inbox, answers, again=again)
        return (await self._view(log, 0)).standing

    def _shown_to(self, caller: str | None) -> LogWriter:
        """The log, for a caller who may see what others have sent."""
        log = self._stored()
        if caller is None and not self._config.listens_on_loopback:
            raise Refusal(403, "labels need keys where the service listens beyond loopback: see serve.auth.labellers")
        if caller is not None and caller not in self._config.auth.labellers:
            raise Refusal(403, "this key may not see what others have sent: serve.auth.labellers lists those that may")
        return log

    def _stored(self) -> LogWriter:
        if self._log is None:
            raise Refusal(404, "labels are not kept here: serve.feedback.url is not set")
        return self._log

    async def _view(self, log: LogWriter, limit: int) -> InboxView:
        try:
            return await log.call(DecisionLog.inbox, limit)
        except LogUnavailableError:
            raise Refusal(503, "the log cannot be read", RETRY_AFTER_S) from None

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except RejectedError as error:
            raise Refusal(error.status, str(error), RETRY_AFTER_S if error.status == 429 else None) from None
        except LogUnavailableError:
            self._metrics.unstored("feedback")
            raise Refusal(503, "the log is not available: nothing is known to be stored", RETRY_AFTER_S) from None
