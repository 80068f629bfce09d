"""Labels that callers send as feedback: stored in the log before they are acknowledged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipelines.serve.cascade.version import CascadeVersion
from pipelines.serve.config import ServeConfig
from pipelines.serve.errors import InvalidInputError, LogAwayError, NotStoredError
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.entries import Feedback
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics
from pipelines.serve.release import Releases
from pipelines.serve.schemas import FeedbackResponse


class Labelling:
    """Labels of the door's application; `log` is None if nothing is stored.

    Every call may raise NotStoredError if nothing is stored, and LogAwayError while the log is unavailable.
    """

    def __init__(
        self, releases: Releases[CascadeVersion], config: ServeConfig, log: LogWriter | None, metrics: ServeMetrics
    ) -> None:
        self._releases, self._config, self._log, self._metrics = releases, config, log, metrics

    async def feedback(self, request_id: str, caller: str | None, labels: Sequence[Feedback]) -> FeedbackResponse:
        """Store true labels.

        Raises RejectedError for labels that the log refuses, InvalidInputError for a label that the model does not
        know, unless the configuration keeps new labels.
        """
        log, version = self._stored(), self._releases.current
        label_names = version.small_side.bundle.label_names
        unknown = [index for index, label in enumerate(labels) if label.label not in label_names]
        if unknown and self._config.feedback.new_labels == "refuse":
            raise InvalidInputError(f"labels[{unknown[0]}].label: the model has no such label; see /v1/model")
        labels = [replace(label, new=True) if index in unknown else label for index, label in enumerate(labels)]
        try:
            await log.add_feedback(request_id, caller, labels)
        except LogUnavailableError:
            self._metrics.unstored("feedback")
            raise LogAwayError("the log is unavailable: the labels may not be stored") from None
        if version.auditor:
            version.auditor.monitor.schedule()
        return FeedbackResponse(request_id=request_id, stored=len(labels))

    def _stored(self) -> LogWriter:
        if self._log is None:
            raise NotStoredError("labels are not kept here: serve.feedback.url is not set")
        return self._log
