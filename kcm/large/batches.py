"""Questions through a server's batch interface: half the price, an answer within a day.

A batch and its budget are recorded before the batch is created, under a tag that the server stores too. A run that was
killed at any moment therefore continues with the same batch.
"""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, Any, Final

from openai import APIConnectionError, APIError, APIStatusError, InternalServerError, OpenAI
from openai.types import Batch
from pydantic_core import from_json, to_json

from kcm.errors import DataError
from kcm.large.response_cache import BudgetSpent, OpenBatch, ResponseCache

PRICE = 0.5  # relative to single questions
MAX_QUESTIONS, MAX_BYTES = 50_000, 150 * 2**20  # per batch; OpenAI accepts 50,000 and 200 MB
_ENDPOINT: Final = "/v1/chat/completions"
_TAG, _PAUSE_S = "kcm", 20.0
_UNDER_WAY = ("validating", "in_progress", "finalizing", "cancelling")


class Batches:
    """The batches of one account; `keep` takes an answer's key and chat completion, and returns False if it is none."""

    def __init__(
        self,
        client: OpenAI,
        headers: Mapping[str, Any],
        cache: ResponseCache,
        keep: Callable[[str, bytes], bool],
        closing: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        self._client, self._cache, self._keep, self._closing, self._say = client, cache, keep, closing, say
        self._headers: dict[str, Any] = {"extra_headers": dict(headers)}

    def resume(self) -> None:
        """Collect the batches that an earlier run left open."""
        for batch in self._cache.open_batches():
            self._collect(batch)

    def answer(self, questions: Iterable[tuple[str, dict[str, Any], float]]) -> None:
        """Ask questions, each with its key and its highest cost, and wait for all batches.

        Raises DataError if the server refuses a batch, or the budget has no room for it.
        """
        for batch in list(self._create_all(questions)):
            self._collect(batch)

    def _create_all(self, questions: Iterable[tuple[str, dict[str, Any], float]]) -> Iterator[OpenBatch]:
        with tempfile.TemporaryFile() as file:
            count, max_currency = 0, 0.0
            for key, body, max_price in questions:
                line = {"custom_id": key, "method": "POST", "url": _ENDPOINT, "body": body}
                file.write(to_json(line) + b"\n")
                count, max_currency = count + 1, max_currency + max_price
                if count == MAX_QUESTIONS or file.tell() > MAX_BYTES:
                    yield self._create(file, count, max_currency)
                    file.truncate(file.seek(0))
                    count, max_currency = 0, 0.0
            if count:
                yield self._create(file, count, max_currency)

    def _create(self, file: IO[bytes], count: int, max_currency: float) -> OpenBatch:
        tag = uuid.uuid4().hex
        try:
            self._cache.reserve(max_currency, count, tag)
        except BudgetSpent as error:
            raise DataError(f"a batch of {count:,} questions does not fit: {error}", where="large") from None
        file.seek(0)
        with self._refusals():
            try:
                uploaded = self._client.files.create(file=(f"{tag}.jsonl", file), purpose="batch", **self._headers)
                batch = self._client.batches.create(
                    completion_window="24h",
                    endpoint=_ENDPOINT,
                    input_file_id=uploaded.id,
                    metadata={_TAG: tag},
                    **self._headers,
                )
            except APIStatusError:  # refused: no batch was created
                self._cache.close_batch(OpenBatch(tag, None, count, max_currency), 0)
                raise
        self._cache.name_batch(tag, batch.id)
        self._say(
            f"batch {batch.id}: {count:,} questions; if the run is interrupted, start it again to continue this batch"
        )
        return OpenBatch(tag, batch.id, count, max_currency)

    def _collect(self, batch: OpenBatch) -> None:
        """Wait for a batch, keep its answers, and release the budget of questions without an answer."""
        with self._refusals():
            name = batch.id or self._name_of(batch.tag)
            if name is None:  # killed before it was created, or another process is creating it: it stays booked
                self._cache.close_batch(replace(batch, count=0, most=0.0), 0)
                return
            ended, num_answered = self._ended(name), 0
            for file in filter(None, (ended.output_file_id, ended.error_file_id)):
                with self._client.files.with_streaming_response.content(file, **self._headers) as content:
                    for line in content.iter_lines():
                        entry = from_json(line)
                        response = entry.get("response") or {}
                        if response.get("status_code") == 200:
                            num_answered += self._keep(entry["custom_id"], to_json(response["body"]))
        self._cache.close_batch(batch, num_answered)
        if not num_answered:
            errors = ended.errors.data if ended.errors and ended.errors.data else []
            reason = "; ".join(error.message or "" for error in errors[:3]) or "no question was answered"
            raise DataError(f"batch {name} is {ended.status}: {reason}", where="large.batch", hint=_HINT)
        if num_answered < batch.count:
            num_missing = batch.count - num_answered
            self._say(f"batch {name} left {num_missing:,} questions, which are asked one by one at the full price")

    def _ended(self, name: str) -> Batch:
        """The finished batch; waits for an unreachable server."""
        while True:
            try:
                batch = self._client.batches.retrieve(name, **self._headers)
                if batch.status not in _UNDER_WAY:
                    return batch
            except (APIConnectionError, InternalServerError) as error:
                self._say(f"batch {name}: {_words(error)}; trying again")
            if self._closing.wait(_PAUSE_S):
                raise DataError(f"batch {name} was not waited for", where="large.batch", hint="Start again")

    def _name_of(self, tag: str) -> str | None:
        """The server's name for the batch with a tag; None if there is none."""
        batches = self._client.batches.list(limit=100, **self._headers)
        return next((batch.id for batch in batches if (batch.metadata or {}).get(_TAG) == tag), None)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except APIError as error:
            raise DataError(f"the batch interface fails: {_words(error)}", where="large.batch", hint=_HINT) from None


_HINT = "Start again to continue, or ask one by one: large.batch: false, or without --batch"


def _words(error: APIError) -> str:
    return " ".join(error.message.split())[:300]
