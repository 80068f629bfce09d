"""Labels that callers send as feedback: stored in the log before they are acknowledged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.config import RETRY_AFTER_S, ServeConfig
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.entries import Feedback, RejectedError
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics
from pipelines.serve.release import Releases
from pipelines.serve.schemas import FeedbackResponse, Refusal


class Labelling:
    """Labels of the door's application; `log` is None if nothing is stored.

    Every call may raise Refusal: 404 if nothing is stored, 503 while the log is unavailable.
    """

    def __init__(
        self, releases: Releases[CascadeVersion], config: ServeConfig, log: LogWriter | None, metrics: ServeMetrics
    ) -> None:
        self._releases, self._config, self._log, self._metrics = releases, config, log, metrics

    async def feedback(self, request_id: str, caller: str | None, labels: Sequence[Feedback]) -> FeedbackResponse:
        """Store true labels.

        404 for an item that was not answered for this caller, 409 for an item with another label, 422 for a label that
        the model does not know (unless the configuration keeps new labels), 429 for too many new labels.
        """
        log, version = self._stored(), self._releases.current
        label_names = version.small_side.bundle.label_names
        unknown = [index for index, label in enumerate(labels) if label.label not in label_names]
        if unknown and self._config.feedback.new_labels == "refuse":
            raise Refusal(422, f"labels[{unknown[0]}].label: the model has no such label; see /v1/model")
        labels = [replace(label, new=True) if index in unknown else label for index, label in enumerate(labels)]
        with self._refusing():
            await log.add_feedback(request_id, caller, labels)
        if version.auditor:
            version.auditor.monitor.schedule()
        return FeedbackResponse(request_id=request_id, stored=len(labels))

    def _stored(self) -> LogWriter:
        if self._log is None:
            raise Refusal(404, "labels are not kept here: serve.feedback.url is not set")
        return self._log

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except RejectedError as error:
            raise Refusal(error.status, str(error), RETRY_AFTER_S if error.status == 429 else None) from None
        except LogUnavailableError:
            self._metrics.unstored("feedback")
            raise Refusal(503, "the log is unavailable: the labels may not be stored", RETRY_AFTER_S) from None
