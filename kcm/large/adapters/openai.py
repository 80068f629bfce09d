"""The `openai` adapter: any server with OpenAI's chat completions API.

An answer is requested as JSON that fits only one of the labels, with log-probabilities. A server that supports neither
gets a request for the bare label. Answers are cached and paid for once.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator

from kcm.config import parse_config
from kcm.errors import ConfigError, DataError
from kcm.inputs.content import TEXT, Part
from kcm.inputs.visible import Name
from kcm.large.base import PROBE, Cost, Estimate, Item, LargeAnswer, LargeModel
from kcm.large.batches import PRICE, Batches
from kcm.large.config import ON_CPU, LargeConfig, Resources, UpstreamConfig, listed_price
from kcm.large.head import LinearHead
from kcm.large.prompts import (
    MAX_CHARS,
    PromptMessage,
    TaskPromptConfig,
    answer_schema,
    label_distribution,
    matching_label,
    question,
    reply_label,
    reply_probability,
)
from kcm.large.response_cache import BudgetSpent, Claimed, ResponseCache, ResponseStore
from kcm.large.upstream import Reply, Upstream, UpstreamError, parsed

_MILLION = 1_000_000
_OVERHEAD_TOKENS = 64  # added to a question by chat templates
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_BYTES_PER_TOKEN = 4  # in English text; an estimate
_CLAIM_PAUSE_S = 0.2  # while another process asks the same question
_RESERVED = frozenset({"model", "messages", "stream", "n"})  # parameters of a request that `extra` cannot set


class OpenAiConfig(LargeConfig, UpstreamConfig):
    """A server of chat completions, OpenAI's own or a compatible one."""

    reads: ClassVar[frozenset[Part]] = TEXT
    remote: ClassVar[bool] = True
    operational: ClassVar[frozenset[str]] = frozenset(
        {
            "api_key_env",
            "batch",
            "num_concurrent",
            "timeout_s",
            "max_retries",
            "max_wait_s",
            "max_failed",
            "prompt",
            "extra",
        }
    )  # these change no answer, or are part of the identity

    max_chars: int = Field(default=MAX_CHARS, ge=1, description="Characters of an item beyond this number are cut off.")
    prompt: TaskPromptConfig = TaskPromptConfig()
    model: Name = Field(min_length=1, description="Name of the model, as the server knows it.")
    extra: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Further parameters of a request, such as reasoning_effort; null removes a default parameter.",
    )
    batch: bool = Field(
        default=False,
        description="Ask a run's rows through the server's batch interface: half the price, an answer within a day.",
    )
    max_failed: float = Field(
        default=0.02, ge=0, le=1, description="Share of rows that may stay unanswered; above it, the run stops."
    )
    num_concurrent: int = Field(default=8, ge=1, description="Concurrent questions.")
    timeout_s: float = Field(default=60.0, gt=0, description="Seconds that a reply may take.")
    max_retries: int = Field(default=5, ge=0, description="Retries when the server is in trouble.")
    max_wait_s: float = Field(
        default=60.0, ge=0, description="Longest pause before a retry; if a server asks for more, the question fails."
    )

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if reserved := sorted(_RESERVED & value.keys()):
            raise ValueError(f"must not set {', '.join(reserved)}")
        return value

    def build(self, label_names: Sequence[str], assets_dir: Path, resources: Resources = ON_CPU) -> LargeModel:
        return OpenAiModel(self, label_names, resources.responses, resources.limit_s, resources.warn)

    def identity(self, label_names: Sequence[str], assets_dir: Path, *, head: LinearHead | None = None) -> str:
        self.key()
        return openai_identity(self, label_names)

    @property
    def location(self) -> str:
        """The model's name."""
        return self.model

    def messages(self, label_names: Sequence[str], item: Item) -> list[PromptMessage]:
        """The messages of the request for one item."""
        asked = question(item.content.text, label_names, max_chars=self.max_chars, task=self.prompt)
        return [PromptMessage("system", asked.instructions), PromptMessage("user", asked.data)]


class OpenAiModel:
    """Asks a server; `responses` is the store of its answers and their cost; None keeps both in memory.

    `limit_s` is the time that one question may take, with its retries. The budget belongs to `account`; by default, to
    this server and model over all runs on the store. Raises ConfigError if the environment variable with the key is not
    set.
    """

    def __init__(
        self,
        config: OpenAiConfig,
        label_names: Sequence[str],
        responses: ResponseStore | None = None,
        limit_s: float = math.inf,
        warn: Callable[[str], None] = lambda line: None,
        account: str | None = None,
    ) -> None:
        config.prompt.check(label_names)
        self._label_names, self._config, self._warn = tuple(label_names), config, warn
        self._limit_s = limit_s
        self._upstream = Upstream(
            config.base_url,
            config.key(),
            timeout_s=config.timeout_s,
            max_retries=config.max_retries,
            max_wait_s=config.max_wait_s,
            limit_s=limit_s,
            warn=warn,
        )
        account = account or config.base_url
        self._cache = ResponseCache(responses, account, max_calls=config.max_calls, max_cost=config.max_cost)
        self._workers = ThreadPoolExecutor(config.num_concurrent, thread_name_prefix="openai")
        self._waiting: dict[str, list[Future[LargeAnswer]]] = {}  # the futures that wait for each question's answer
        self._lock = threading.Lock()
        self.rows_per_batch, self.max_failed = 8 * config.num_concurrent, config.max_failed  # see `PaidModel`

    def answer(self, items: Sequence[Item]) -> list[LargeAnswer]:
        """One answer per item. Equal questions are asked once, even if several threads ask them.

        Raises ConfigError when the server does not accept the key or the model.
        """
        futures = [self.ask(item) for item in items]
        try:
            return [future.result() for future in futures]
        except (KeyboardInterrupt, SystemExit):  # ask nothing more, or the process would continue to pay
            self.close()
            raise

    def close(self) -> None:
        """Ask nothing more. Waiting callers get CancelledError; calls that are under way finish."""
        self._upstream.close()
        self._workers.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            waiting = [future for futures in self._waiting.values() for future in futures]
        for future in waiting:
            future.cancel()

    def probe(self) -> LargeAnswer:
        """The server's answer to a question that belongs to no row; never a cached answer."""
        body = self._body(PROBE)
        return self._ask_server(f"probe {_key(self._config, body)}", body)

    def spent(self) -> tuple[int, float]:
        """Calls and currency paid so far, over all runs on the same store."""
        return self._cache.spent()

    def left(self) -> float:
        """Currency that may still be spent, under the budget and the total of the store."""
        return self._cache.left()

    def estimate(self, items: Sequence[Item]) -> Estimate:
        """Expected cost of the answers to `items` that are not paid yet, at four bytes per token."""
        total, share = Estimate(), PRICE if self._config.batch else 1.0
        for body in self._unpaid(items).values():
            num_read = sum(len(str(message["content"]).encode()) for message in body["messages"]) // _BYTES_PER_TOKEN
            num_written = min(16, _max_tokens(body))
            price, max_price = share * self._price(num_read, num_written), share * self._max_price(body)
            total += Estimate(1, num_read + num_written, price, max_price)
        return total

    def highest_prices(self, items: Sequence[Item]) -> list[float]:
        """The highest possible cost of an answer to each item; 0 if the answer is already paid."""
        bodies = [self._body(item) for item in items]
        keys = [_key(self._config, body) for body in bodies]
        cached_keys = self._cache.known(keys)
        return [0.0 if key in cached_keys else self._max_price(body) for key, body in zip(keys, bodies, strict=True)]

    def ask_ahead(self, items: Iterable[Sequence[Item]]) -> None:
        """Pay for unpaid answers through the batch interface, if it is configured; `answer` then finds them.

        Raises DataError if the server or the budget refuses a batch.
        """
        if self._config.batch:
            client, headers = self._upstream.blocking_client()
            batches = Batches(client, headers, self._cache, self._keep, self._upstream.closing, self._warn)
            batches.resume()
            batches.answer(self._questions(items))

    def _questions(self, items: Iterable[Sequence[Item]]) -> Iterator[tuple[str, dict[str, Any], float]]:
        """Each unpaid question once, with its key and its highest cost in a batch; parameters are not negotiated."""
        seen_keys: set[str] = set()
        for key, body in chain.from_iterable(self._unpaid(chunk).items() for chunk in items):
            if not seen_keys and (fault := self.probe()).error and not fault.off_label:
                raise DataError(f"the large model does not answer a first question: {fault.error}", where="large")
            if key not in seen_keys:
                seen_keys.add(key)
                yield key, self._upstream.accepted(body), PRICE * self._max_price(body)

    def _unpaid(self, items: Sequence[Item]) -> dict[str, dict[str, Any]]:
        """The requests without an answer so far, by key."""
        bodies_sent = map(self._body, (item for item in items if item.content.text.strip()))
        bodies = {_key(self._config, body): body for body in bodies_sent}
        cached_keys = self._cache.known(list(bodies))
        return {key: body for key, body in bodies.items() if key not in cached_keys}

    def _keep(self, key: str, completion: bytes) -> bool:
        """Keep the answer of a batch; returns False if there is none."""
        try:
            record = self._record(parsed(completion, 0.0), {})
        except UpstreamError:
            return False
        if self._cache.find(key) is None:  # otherwise it was kept before the run was killed
            record["currency"] *= PRICE
            self._cache.keep(key, record, 0.0, record["currency"])
        return True

    def ask(self, item: Item, *, again: bool = False) -> Future[LargeAnswer]:
        """The answer to one item, independent of other items.

        A question is not asked if all its futures are cancelled before it is sent. `again` repeats a question whose
        reply was outside the label list; both answers are kept.
        """
        future: Future[LargeAnswer] = Future()
        if not item.content.text.strip():
            future.set_result(LargeAnswer(None, error="the text is empty"))
            return future
        body = self._body(item)
        key = _key(self._config, body) + (" again" if again else "")
        with self._lock:
            if key not in self._waiting:
                self._workers.submit(copy_context().run, self._work, key, body)  # within the caller's trace
                self._waiting[key] = []
            self._waiting[key].append(future)
        return future

    def _work(self, key: str, body: dict[str, Any]) -> None:
        """Answer a question for all waiting callers, including callers that join while it runs."""
        with self._lock:
            if all(future.cancelled() for future in self._waiting[key]):
                del self._waiting[key]
                return
        outcome: LargeAnswer | Exception
        try:
            outcome = self._answer(key, body)
        except Exception as error:
            outcome = error
        with self._lock:
            waiting = self._waiting.pop(key)
        for future in waiting:
            if not future.set_running_or_notify_cancel():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _body(self, item: Item) -> dict[str, Any]:
        """The request before unknown parameters are dropped; this form identifies the answer."""
        messages = self._config.messages(self._label_names, item)
        body: dict[str, Any] = {
            "model": self._config.model,
            "messages": [asdict(message) for message in messages],
            "temperature": 0,
            "max_tokens": 16 + max(len(json.dumps(name)) for name in self._label_names),  # a token is a byte or more
            "logprobs": True,
            "response_format": answer_schema(self._label_names),
        }
        return {name: value for name, value in (body | self._config.extra).items() if value is not None}

    def _answer(self, key: str, body: dict[str, Any]) -> LargeAnswer:
        deadline = time.monotonic() + self._limit_s
        claim = key, self._config.timeout_s + self._config.max_wait_s
        while True:
            if (record := self._cache.find(key)) is not None:
                return self._parse_record(record)
            try:
                return self._ask_server(key, body, claim)
            except Claimed:
                if self._upstream.closing.wait(_CLAIM_PAUSE_S) or time.monotonic() > deadline:
                    return LargeAnswer(None, error="another process asks this, without an answer so far", outage=True)

    def _ask_server(self, key: str, body: dict[str, Any], claim: tuple[str, float] | None = None) -> LargeAnswer:
        """The server's answer within the budget, which is then cached under `key`. Raises Claimed, see `reserve`."""
        max_price = self._max_price(body)
        try:
            reply = self._upstream.ask(body, lambda attempt: self._within_budget(attempt, max_price, claim))
        except (BudgetSpent, UpstreamError) as error:
            if claim:
                self._cache.unclaim(key)
            return LargeAnswer(None, error=str(error), outage=getattr(error, "outage", False))
        record = self._record(reply, body)
        self._cache.keep(key, record, max_price, record["currency"])
        return self._parse_record(record)

    def _within_budget(self, attempt: Callable[[], Reply], max_price: float, claim: tuple[str, float] | None) -> Reply:
        """One attempt within the budget. A lost attempt stays booked at its maximum, an answer at its cost."""
        self._cache.reserve(max_price, claim=claim)
        try:
            return attempt()
        except (UpstreamError, ConfigError) as error:
            if not getattr(error, "may_be_charged", False):
                self._cache.release(max_price)
            raise

    def _record(self, reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
        reply_text = reply_label(reply.content, self._label_names)
        num_read = reply.num_read if reply.num_read is not None else _most_tokens(body)
        num_written = reply.num_written if reply.num_written is not None else _max_tokens(body)
        return {
            "said": reply_text[:1000],
            "probability": reply_probability(reply.content, reply.logprobs, reply_text),
            "tokens": num_read + num_written,
            "currency": self._price(num_read, num_written),
            "seconds": reply.seconds,
        }

    def _parse_record(self, record: dict[str, Any]) -> LargeAnswer:
        cost = Cost(record["seconds"], record["tokens"], record["currency"])
        label = matching_label(record["said"], self._label_names)
        if label is None:
            reply_text = record["said"][:100]
            return LargeAnswer(
                None,
                None,
                cost,
                f"answered {reply_text!r}, which is not on the label list",
                off_label=True,
                reply=reply_text,
            )
        if (probability := record["probability"]) is None:
            return LargeAnswer(label, None, cost)
        return LargeAnswer(label, label_distribution(label, probability, len(self._label_names)), cost)

    def _max_price(self, body: dict[str, Any]) -> float:
        """The highest possible cost of one call."""
        return self._price(_most_tokens(body), _max_tokens(body))

    def _price(self, num_read: int, num_written: int) -> float:
        return (num_read * self._config.input_price + num_written * self._config.output_price) / _MILLION


def _key(config: OpenAiConfig, body: dict[str, Any]) -> str:
    """Digest of everything that decides the answer to a question."""
    return hashlib.sha256(json.dumps([config.base_url, body], sort_keys=True).encode()).hexdigest()


def _max_tokens(body: dict[str, Any]) -> int:
    """The most tokens that a reply may have; for a request without a limit, as many as a label needs."""
    limit = body.get("max_tokens", body.get("max_completion_tokens"))
    return limit if isinstance(limit, int) else 256


def _most_tokens(body: dict[str, Any]) -> int:
    """Upper bound on the tokens of a question: its bytes."""
    return len(json.dumps(body, ensure_ascii=False).encode()) + _OVERHEAD_TOKENS


def openai_identity(config: OpenAiConfig, label_names: Sequence[str]) -> str:
    """Digest of everything on the client that decides the answers; the server decides which model the name means.

    Raises ConfigError for a prompt that names an unknown label.
    """
    config.prompt.check(label_names)
    words = str(question("", label_names, max_chars=config.max_chars, task=config.prompt))
    parts = [config.base_url, config.model, str(config.max_chars), words]
    if config.extra:
        parts.append(json.dumps(config.extra, sort_keys=True))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def openai_config(model: str, base_url: str | None = None, **more: Any) -> OpenAiConfig:
    """The server of a model: OpenAI's own at its listed price, or the one at `base_url`.

    A server on this machine gets no key unless `api_key_env` names one. `more` are fields of `OpenAiConfig`.
    """
    values: dict[str, Any] = {"adapter": "openai", "model": model}
    if base_url is None:
        values |= dict(zip(("input_price", "output_price"), listed_price(model) or (), strict=False))
    else:
        values["base_url"] = base_url
        if urlsplit(base_url).hostname in _THIS_MACHINE:
            values["api_key_env"] = None
    return parse_config(OpenAiConfig, values | more, where="llm")
