"""How the cascade is served. Ray Serve's own defaults (5 requests at once, an endless queue) are all replaced."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from kcm.cascade.policy import OnLargeFailure
from kcm.config import Config
from kcm.costs import CostsConfig
from kcm.large import UpstreamConfig
from kcm.redact import PlainUrl
from pipelines.serve.breaker import BreakerConfig
from pipelines.serve.proxy_config import ProxyConfig

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

DATABASES = ("sqlite", "postgresql")

MAX_FEATURES = 4096  # numbers of an item's vector; max_json_values counts two for each
RETRY_AFTER_S = 1  # what a refused client is told to wait: an item takes less
VALUES_PER_ITEM = 12  # what a label with its text and task counts for among JSON's keys and values


class ReplicaConfig(Config):
    """Replicas of a deployment, and how many requests each of them accepts."""

    num_replicas: int = Field(default=1, ge=1, description="Processes that share the work.")
    cpus: float = Field(default=1.0, ge=0, description="Logical CPUs that a replica reserves; also its torch threads.")
    gpus: float = Field(default=0.0, ge=0, description="GPU share of a replica; with none it computes on CPUs.")
    runtime: Literal["torch", "onnx"] | None = Field(
        default=None,
        description="What computes a frozen encoder on CPUs, where its precision leaves a choice; null: what the "
        "certificate was issued with. Another one voids it.",
    )
    max_ongoing_requests: int = Field(default=64, ge=1, description="Requests that a replica works on at once.")
    max_queued_requests: int = Field(
        default=256, ge=0, description="Requests that wait for a replica; more are refused."
    )

    @property
    def device(self) -> str:
        """The torch device of a replica."""
        return "cuda" if self.gpus else "cpu"


class ScaledReplicaConfig(ReplicaConfig):
    """Replicas that may come and go with the load."""

    min_replicas: int | None = Field(
        default=None,
        ge=0,
        description="Fewest replicas, as many as the load asks for up to num_replicas; with 0 the first requests "
        "after a pause wait until one has started, within timeout_s; null: always num_replicas.",
    )
    idle_s: float = Field(
        default=300.0, gt=0, description="Time after which a replica that is not needed stops, above min_replicas."
    )

    @model_validator(mode="after")
    def _fewest_below_most(self) -> ScaledReplicaConfig:
        if self.min_replicas is not None and self.min_replicas > self.num_replicas:
            raise ValueError(
                f"min_replicas ({self.min_replicas}) must not exceed num_replicas ({self.num_replicas}), the most"
            )
        return self


class BatchingConfig(ReplicaConfig):
    """Replicas that compute items of several requests together."""

    max_batch_size: int = Field(default=32, ge=1, description="Items computed together.")
    max_waiting_items: int = Field(
        default=1024, ge=1, description="Items that wait in a replica to be computed; more are refused."
    )

    @model_validator(mode="after")
    def _full_batches(self) -> BatchingConfig:
        if self.max_ongoing_requests < self.max_batch_size:
            raise ValueError(
                f"max_ongoing_requests ({self.max_ongoing_requests}) must be at least max_batch_size "
                f"({self.max_batch_size}), or requests of one item never fill a batch"
            )
        return self


class LargeReplicaConfig(BatchingConfig, ScaledReplicaConfig):
    """Replicas of the large model."""

    cpus: float = Field(
        default=2.0,
        ge=0,
        description="Logical CPUs that a replica reserves; also its threads: no part of an answer takes as long.",
    )
    max_batch_size: int = Field(default=16, ge=1, description="Items computed together.")
    timeout_s: float = Field(
        default=20.0, gt=0, description="Time that an escalation may take, its queue and its retry included."
    )
    attempt_timeout_s: float = Field(
        default=10.0, gt=0, description="Time after which a call is given up; a second one is made if time is left."
    )
    breaker: BreakerConfig = Field(default=BreakerConfig(), description="When the large model is left alone.")
    on_large_failure: OnLargeFailure | None = Field(
        default=None,
        description="What becomes of an input that the large model fails, for `kcm predict` too: answer_small: the "
        "small model answers, outside the promise; error: it gets no answer; null: as the bundle says.",
    )
    upstreams: tuple[UpstreamConfig, ...] = Field(
        default=(),
        description="Servers that the `openai` model of a bundle may be asked at; CONFIG's own `large` is one of them.",
    )


class LimitsConfig(Config):
    """The largest request that is accepted."""

    max_body_bytes: int = Field(default=4 * 2**20, ge=1, description="Bytes of a request.")
    body_timeout_s: float = Field(
        default=10.0, gt=0, description="Time in which a request's body must have arrived, or is answered by 408."
    )
    slow_body_s: float = Field(
        default=3.0, gt=0, description="Time after which a body that has not arrived is slow; few of those are awaited."
    )
    max_slow_bodies: int = Field(
        default=64, ge=0, description="Slow bodies that a replica waits for, until body_timeout_s; others get 408."
    )
    max_slow_bodies_per_peer: int = Field(
        default=16,
        ge=0,
        description="The same from one address. Behind a proxy all clients have its address, unless the variable "
        "FORWARDED_ALLOW_IPS of the nodes names the proxy, whose X-Forwarded-For then counts.",
    )
    max_json_values: int = Field(
        default=16_384,
        ge=1,
        description="Keys and values that the JSON of a request may hold, brackets and commas counted.",
    )
    max_items: int = Field(default=128, ge=1, description="Items of a request.")
    max_text_length: int = Field(default=10_000, ge=1, description="Characters of an item's text.")
    max_image_bytes: int = Field(
        default=2 * 2**20, ge=1, description="Bytes of an item's picture; its pixels are limited by the encoder."
    )
    max_pixels: int = Field(
        default=25_000_000,
        ge=1,
        description="Width times height of all pictures of a request, by their headers; beyond, none is decoded.",
    )

    @model_validator(mode="after")
    def _values_of_a_request(self) -> LimitsConfig:
        if self.max_json_values < (needed := VALUES_PER_ITEM * (self.max_items + 1)):
            raise ValueError(
                f"max_json_values ({self.max_json_values}) must be at least {needed}, {VALUES_PER_ITEM} for each of "
                f"max_items ({self.max_items}) and the request, or the largest one that is allowed is refused"
            )
        return self


class AuthConfig(Config):
    """Who may call, and how often."""

    keys_file: Path | None = Field(
        default=None,
        description="File with a line `NAME SHA256` per key, read again when it changes, seen by all nodes; anyone may "
        "call without one.",
    )
    requests_per_minute: float | None = Field(
        default=None,
        gt=0,
        description="Requests of a name, or of all callers where there are no keys; at least num_replicas.",
    )

    @field_validator("keys_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        """Replicas work in folders of their own."""
        return value and value.expanduser().absolute()


class AuditConfig(Config):
    """How much of what the small side keeps is checked."""

    share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability that a kept item is also put to the large model, once it has been answered; 0: none.",
    )
    seed: int | None = Field(default=None, description="Seed of the draws; null: another one at every start.")
    label_wait_s: float = Field(
        default=86400.0,
        gt=0,
        description="Time that the true label of a disagreement may take, before the alarm of a certificate that "
        "labels refute goes on without it.",
    )


class FeedbackConfig(Config):
    """Where decisions and true labels are kept, and how much of the inputs."""

    url: PlainUrl | None = Field(
        default=None,
        description="SQLAlchemy URL, sqlite:////absolute/path or postgresql+psycopg://host/name (password by PGPASSWORD"
        " or PGPASSFILE); a file in the storage path without one.",
    )
    store_payloads: Literal["none", "escalated", "text", "all"] = Field(
        default="none",
        description="What is kept of inputs, for updates to learn from: texts of `escalated` ones, of every one "
        "(`text`), or `all`, which adds the picture and the features. Texts of feedback always are.",
    )
    keep_days: float | None = Field(
        default=90.0, gt=0, description="Age at which what is kept of inputs is deleted; null: never."
    )
    keep_bytes: int | None = Field(
        default=10 * 2**30,
        ge=0,
        description="Bytes of inputs that an application keeps; beyond, the oldest are deleted; null: no limit.",
    )
    new_labels: Literal["refuse", "keep"] = Field(
        default="refuse",
        description="What becomes of a label that the model does not know: refuse: it is answered by 422; keep: it is "
        "stored, certifies and watches nothing, and is learned once `kcm labels --name` names it.",
    )
    max_new_labels: int = Field(
        default=20,
        ge=1,
        description="Different new labels that a caller may give within 24 hours, where they are kept.",
    )
    max_share_per_caller: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="Share of the labels that one caller's may be, of those that watch a certificate and that an "
        "update learns from; others are kept and do not count. With fewer than 1 / share callers no label counts; a "
        "caller who gives labels alone has no limit.",
    )
    timeout_s: float = Field(default=2.0, gt=0, description="Time that the database may take to store something.")

    @field_validator("url")
    @classmethod
    def _usable(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            url = make_url(value)
        except ArgumentError:
            raise ValueError("not a URL such as sqlite:////absolute/path.db") from None
        if url.get_backend_name() not in DATABASES:
            raise ValueError(f"the databases that can be used are {', '.join(DATABASES)}")
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_absolute():
            raise ValueError("the path must be absolute (sqlite:////path): replicas work in folders of their own")
        return value


LOG_FILE = "feedback.db"  # in the storage, where no other log is configured


class ServeConfig(BatchingConfig):
    """The served cascade; the replica settings at this level are those of the door, which holds the collaborator."""

    application: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Whose decisions these are, in a log that several applications may share; null: the run's name.",
    )
    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on; loopback unless told otherwise."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Names, without a port, by which clients may call it: `kcm.example.org`, `*.example.org`, `*` for "
        "any; those of loopback, and `host` where it names one address, are always allowed.",
    )
    port: int = Field(default=8000, ge=1, le=65535, description="Port to listen on.")
    costs: CostsConfig | None = Field(default=None, description="Prices that the page tells; null: those of the run.")
    timeout_s: float = Field(
        default=30.0, gt=0, description="Time that a request may take once a replica has taken it."
    )
    judge_timeout_s: float = Field(
        default=8.0, gt=0, description="Time that the small side may take, its queue included."
    )
    load_timeout_s: float = Field(
        default=300.0, gt=0, description="Time in which another version must be loaded and answer, or is refused."
    )
    max_queued_requests: int = Field(
        default=32,
        ge=0,
        description="Requests that wait for a replica; more are refused at once: a longer queue lets all wait longer.",
    )
    label_selector: dict[str, str] = Field(
        default={},
        description="Labels of the nodes that may have replicas, as Ray selects them: "
        '{ray.io/market-type: "!spot"} for none that can be taken away.',
    )
    top_k: int = Field(default=5, ge=1, description="Probabilities that an answer lists, the likeliest labels first.")
    limits: LimitsConfig = Field(default=LimitsConfig(), description="The largest request that is accepted.")
    auth: AuthConfig = Field(default=AuthConfig(), description="Who may call, and how often.")
    feedback: FeedbackConfig = Field(default=FeedbackConfig(), description="Where decisions and true labels are kept.")
    audit: AuditConfig = Field(default=AuditConfig(), description="How the certificate is watched.")
    on_refuted: Literal["escalate_all", "report"] = Field(
        default="escalate_all",
        description="What is done once a version's certificate is refuted, void or has expired: escalate_all: keep "
        "nothing; report: go on, and say so.",
    )
    encoder: ScaledReplicaConfig | None = Field(
        default=None, description="Replicas of the encoder alone, where it has GPUs; null: the door encodes."
    )
    large: LargeReplicaConfig = Field(default=LargeReplicaConfig(), description="Replicas of the large model.")
    proxy: ProxyConfig | None = Field(
        default=None, description="The LLM whose clients call this service instead; null: no request passes through."
    )

    @property
    def with_proxy_server(self) -> ServeConfig:
        """The same with the server of `proxy` among those that the large model may be asked at."""
        if self.proxy is None or self.proxy.server in self.large.upstreams:
            return self
        upstreams = (*self.large.upstreams, self.proxy.server)
        return self.model_copy(update={"large": self.large.model_copy(update={"upstreams": upstreams})})

    @property
    def reserved_cpus(self) -> float:
        """Logical CPUs that all replicas together reserve."""
        return sum(each.num_replicas * each.cpus for each in (self, self.encoder, self.large) if each)

    @property
    def runtimes(self) -> tuple[Literal["torch", "onnx"] | None, Literal["torch", "onnx"] | None]:
        """In what the encoder and the large model are computed, where they are told."""
        return (self.encoder or self).runtime, self.large.runtime

    @property
    def devices(self) -> tuple[str, str]:
        """The torch devices of the encoder and of the large model."""
        return (self.encoder or self).device, self.large.device

    @property
    def hosts(self) -> tuple[str, ...]:
        """All names by which clients may call it."""
        own = () if self.host in ("0.0.0.0", "::") else (f"[{self.host}]" if ":" in self.host else self.host,)
        return (*LOOPBACK_NAMES, *own, *self.allowed_hosts)

    @property
    def listens_on_loopback(self) -> bool:
        """Whether nothing but this machine can reach it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @field_validator("allowed_hosts")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name != "*" and not re.fullmatch(r"(\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", name):
                raise ValueError(f"{name!r} is not a name without a port, such as kcm.example.org or *.example.org")
        return value

    @model_validator(mode="after")
    def _time_to_fall_back(self) -> ServeConfig:
        if self.large.timeout_s >= self.timeout_s:
            raise ValueError(
                f"large.timeout_s ({self.large.timeout_s}) must be below timeout_s ({self.timeout_s}), "
                "or no time is left to answer without the large model"
            )
        return self

    @model_validator(mode="after")
    def _passed_on_for_known_callers(self) -> ServeConfig:
        if self.proxy is None:
            return self
        if self.auth.keys_file is None and not self.listens_on_loopback:
            raise ValueError(
                f"proxy spends your money: without auth.keys_file host must be 127.0.0.1, not {self.host!r}"
            )
        same = [each for each in self.large.upstreams if each.base_url == self.proxy.upstream]
        if any(each != self.proxy.server for each in same):
            raise ValueError(f"large.upstreams names {self.proxy.upstream} again: proxy holds its key and budget")
        return self

    @model_validator(mode="after")
    def _share_of_a_rate(self) -> ServeConfig:
        # A replica lets whole requests through: with a share below one of them, all replicas together exceed the limit.
        rate = self.auth.requests_per_minute
        if rate and self.num_replicas > max(1, rate):
            raise ValueError(
                f"auth.requests_per_minute ({rate:g}) must be at least num_replicas "
                f"({self.num_replicas}), each of which lets its share of whole requests through"
            )
        return self

    @model_validator(mode="after")
    def _room_for_a_request(self) -> ServeConfig:
        for name, room in (("", self.max_waiting_items), ("large.", self.large.max_waiting_items)):
            if room < self.limits.max_items:
                raise ValueError(
                    f"{name}max_waiting_items ({room}) must be at least limits.max_items ({self.limits.max_items}), "
                    "or the largest request that is allowed never finds room"
                )
        return self


def log_url(serve: ServeConfig, storage_path: Path) -> str:
    """The URL of the log of a run that keeps its artefacts in `storage_path`."""
    return serve.feedback.url or f"sqlite:///{storage_path.absolute() / LOG_FILE}"
