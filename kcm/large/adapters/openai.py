"""The `openai` adapter: any server with OpenAI's chat completions API.

An answer is requested as JSON that only one of the labels fits, with log-probabilities; a server that supports neither
is asked for the bare label. Answers are cached and paid for once.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from kcm.config import parse_config
from kcm.errors import ConfigError
from kcm.inputs.content import TEXT, Part
from kcm.large.base import Cost, Item, LargeAnswer, LargeModel
from kcm.large.config import ON_CPU, LargeConfig, Resources, UpstreamConfig
from kcm.large.head import LinearHead
from kcm.large.prompting.prompts import NO_PROMPT, PromptMessage, PromptMode, question
from kcm.large.prompting.replies import (
    answer_schema,
    label_distribution,
    matching_label,
    reply_label,
    reply_probability,
)
from kcm.large.response_cache import BudgetSpent, ResponseCache, ResponseStore
from kcm.large.upstream import Reply, Upstream, UpstreamError

_MILLION = 1_000_000
_OVERHEAD_TOKENS = 64  # what chat templates add to a question


class OpenAiConfig(LargeConfig, UpstreamConfig):
    """A server of chat completions, OpenAI's own or a compatible one."""

    prompt_modes: ClassVar[frozenset[PromptMode]] = frozenset({"none", "soft", "hard"})
    reads: ClassVar[frozenset[Part]] = TEXT
    remote: ClassVar[bool] = True
    operational: ClassVar[frozenset[str]] = frozenset(
        {"api_key_env", "num_concurrent", "timeout_s", "max_retries", "max_wait_s"}
    )  # decide no answer, or by the identity

    model: str = Field(min_length=1, description="Name of the model, as the server knows it.")
    max_chars: int = Field(default=4000, ge=1, description="Characters of an item beyond this number are cut off.")
    num_concurrent: int = Field(default=8, ge=1, description="Questions that are under way at once.")
    timeout_s: float = Field(default=60.0, gt=0, description="Time that a reply may take.")
    max_retries: int = Field(default=5, ge=0, description="Further attempts when the server is in trouble.")
    max_wait_s: float = Field(
        default=60.0, ge=0, description="Longest pause before an attempt; a server that asks for more is given up."
    )

    @property
    def has_budget(self) -> bool:
        """Whether spending is limited."""
        return self.max_calls is not None or self.max_cost is not None

    @property
    def upstream(self) -> UpstreamConfig:
        """The server, its key and budget, which the operator decides."""
        return UpstreamConfig(**{name: getattr(self, name) for name in UpstreamConfig.model_fields})

    def at(self, upstreams: Sequence[UpstreamConfig]) -> OpenAiConfig:
        """The model of a bundle, asked with the key, the prices and the budget that the operator gives its address.

        Raises ConfigError for an address that is not among `upstreams`: whoever wrote the bundle must not decide where
        texts go, nor which variable of the environment goes along.
        """
        for upstream in upstreams:
            if upstream.base_url == self.base_url:
                return parse_config(OpenAiConfig, dict(self) | dict(upstream), where=f"upstream {self.base_url}")
        raise ConfigError(
            f"the bundle's large model is asked at {self.base_url}, which is not allowed here",
            where="large.base_url",
            hint="If it may get your texts, name it and the variable of its key in serve.large.upstreams of CONFIG",
        )

    def build(self, label_names: Sequence[str], assets_dir: Path, resources: Resources = ON_CPU) -> LargeModel:
        return OpenAiModel(self, label_names, resources.responses, resources.limit_s)

    def identity(self, label_names: Sequence[str], assets_dir: Path, *, head: LinearHead | None = None) -> str:
        api_key(self)
        return openai_identity(self, label_names)

    @property
    def location(self) -> str:
        """The model, as it is named."""
        return self.model

    @property
    def rows_per_batch(self) -> int:
        """Enough to keep all connections busy."""
        return 8 * self.num_concurrent

    def messages(self, label_names: Sequence[str], item: Item) -> list[PromptMessage]:
        """The messages of the request."""
        asked = question(item.content.text, label_names, item.prompt, max_chars=self.max_chars)
        return [PromptMessage("system", asked.instructions), PromptMessage("user", asked.data)]


class OpenAiModel:
    """Asks a server; `responses` is the store of its answers and their cost; None keeps both in memory.

    `limit_s` is the time that one question may take, its retries included. Raises ConfigError when the environment
    variable with the key is not set.
    """

    prompt_modes = OpenAiConfig.prompt_modes

    def __init__(
        self,
        config: OpenAiConfig,
        label_names: Sequence[str],
        responses: ResponseStore | None = None,
        limit_s: float = math.inf,
    ) -> None:
        self.label_names, self.identity = tuple(label_names), openai_identity(config, label_names)
        self._config = config
        self._upstream = Upstream(
            config.base_url,
            api_key(config),
            timeout_s=config.timeout_s,
            max_retries=config.max_retries,
            max_wait_s=config.max_wait_s,
            limit_s=limit_s,
        )
        account = f"{config.base_url} {config.model}"
        self._cache = ResponseCache(responses, account, max_calls=config.max_calls, max_cost=config.max_cost)
        self._workers = ThreadPoolExecutor(config.num_concurrent, thread_name_prefix="openai")
        self._waiting: dict[str, list[Future[LargeAnswer]]] = {}  # who waits for the answer to a question
        self._lock = threading.Lock()

    def answer(self, items: Sequence[Item]) -> list[LargeAnswer]:
        """One answer per item. Equal questions are asked once, also those that other threads are asking.

        Raises ConfigError when the server does not accept the key or the model.
        """
        futures = [self.ask(item) for item in items]
        try:
            return [future.result() for future in futures]
        except (KeyboardInterrupt, SystemExit):  # nothing more is asked, or the process would go on paying
            self._upstream.close()
            self._workers.shutdown(wait=False, cancel_futures=True)
            raise

    def ask(self, item: Item) -> Future[LargeAnswer]:
        """The answer to one item, which waits for no other item's.

        A question whose futures are all cancelled before it is sent is not asked.
        """
        future: Future[LargeAnswer] = Future()
        if not item.content.text.strip():
            future.set_result(LargeAnswer(None, error="the text is empty"))
            return future
        body = self._body(item)
        key = hashlib.sha256(json.dumps([self._config.base_url, body], sort_keys=True).encode()).hexdigest()
        allowed = item.prompt.allowed(len(self.label_names))
        with self._lock:
            if key not in self._waiting:
                self._workers.submit(self._work, key, body, allowed)
                self._waiting[key] = []
            self._waiting[key].append(future)
        return future

    def _work(self, key: str, body: dict[str, Any], allowed: Sequence[int]) -> None:
        """Answer a question for all callers that wait for it, including those that join while it runs."""
        with self._lock:
            if all(future.cancelled() for future in self._waiting[key]):
                del self._waiting[key]
                return
        outcome: LargeAnswer | Exception
        try:
            outcome = self._answered(key, body, allowed)
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
        """The request before parameters that the server does not know are dropped; it decides the answer."""
        messages = self._config.messages(self.label_names, item)
        names = [self.label_names[label] for label in item.prompt.allowed(len(self.label_names))]
        return {
            "model": self._config.model,
            "messages": [asdict(message) for message in messages],
            "temperature": 0,
            "max_tokens": 16 + max(len(json.dumps(name)) for name in names),  # a token is a byte or more
            "logprobs": True,
            "response_format": answer_schema(names),
        }

    def _answered(self, key: str, body: dict[str, Any], allowed: Sequence[int]) -> LargeAnswer:
        if (record := self._cache.find(key)) is not None:
            return self._read(record, allowed)
        most = self._most(body)
        try:
            reply = self._upstream.ask(body, lambda attempt: self._within_budget(attempt, most))
        except BudgetSpent as error:
            return LargeAnswer(None, error=str(error))
        except UpstreamError as error:
            return LargeAnswer(None, error=str(error), outage=error.outage)
        answer = self._record(reply, body)
        self._cache.keep(key, answer, most, answer["currency"])
        return self._read(answer, allowed)

    def _within_budget(self, attempt: Callable[[], Reply], most: float) -> Reply:
        """One attempt within the budget. A lost one stays booked at its maximum; an answer is booked at its cost."""
        self._cache.reserve(most)
        try:
            return attempt()
        except (UpstreamError, ConfigError) as error:
            if not getattr(error, "may_be_charged", False):
                self._cache.release(most)
            raise

    def _record(self, reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
        reply_text = reply_label(reply.content)
        num_read = reply.num_read if reply.num_read is not None else _most_tokens(body)
        num_written = reply.num_written if reply.num_written is not None else body["max_tokens"]
        return {
            "said": reply_text[:1000],
            "probability": reply_probability(reply.content, reply.logprobs, reply_text),
            "tokens": num_read + num_written,
            "currency": self._price(num_read, num_written),
            "seconds": reply.seconds,
        }

    def _read(self, record: dict[str, Any], allowed: Sequence[int]) -> LargeAnswer:
        cost = Cost(record["seconds"], record["tokens"], record["currency"])
        found = matching_label(record["said"], [self.label_names[label] for label in allowed])
        if found is None:
            reply_text = record["said"][:100]
            return LargeAnswer(
                None, None, cost, f"answered {reply_text!r}, which is not on the label list", off_label=True
            )
        label, probability = allowed[found], record["probability"]
        if probability is None:
            return LargeAnswer(label, None, cost)
        return LargeAnswer(label, label_distribution(label, probability, allowed, len(self.label_names)), cost)

    def _most(self, body: dict[str, Any]) -> float:
        """The maximal cost of one call."""
        return self._price(_most_tokens(body), body["max_tokens"])

    def _price(self, num_read: int, num_written: int) -> float:
        return (num_read * self._config.input_price + num_written * self._config.output_price) / _MILLION


def _most_tokens(body: dict[str, Any]) -> int:
    """Upper bound on the tokens of a question: its bytes."""
    return len(json.dumps(body, ensure_ascii=False).encode()) + _OVERHEAD_TOKENS


def api_key(config: OpenAiConfig) -> str | None:
    """The key, from the environment alone; None where the server needs none. Raises ConfigError when it is not set."""
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env, "").strip()
    if key and key.isascii() and key.isprintable():
        return key
    raise ConfigError(
        f"the environment variable {config.api_key_env} {'holds no key' if key else 'is not set'}",
        where="large.api_key_env",
        hint="Export the server's key under this name, or set api_key_env to null where it needs none",
    )


def openai_identity(config: OpenAiConfig, label_names: Sequence[str]) -> str:
    """Digest of all that decides the answers on the client; the model behind the name is the server's."""
    parts = (config.base_url, config.model, str(config.max_chars), str(question("", label_names, NO_PROMPT)))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
