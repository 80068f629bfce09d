"""The section `serve`. Ray Serve's own defaults (5 concurrent requests, an unbounded queue) are all replaced."""

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

StoredInputs = Literal["none", "escalated", "text", "all"]

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

DATABASES = ("sqlite", "postgresql")

MAX_WAITING_ITEMS = 1024  # of a replica; more are refused
TOP_K = 5  # probabilities in an answer, the most likely labels first

MAX_FEATURES = 4096  # most numbers in an item's vector; MAX_JSON_VALUES counts two for each
MAX_JSON_VALUES = 16_384  # of a request, counted before parsing; more for more items
MAX_PIXELS = 25_000_000  # of all pictures of a request together, from their headers; with more, none is decoded
RETRY_AFTER_S = 1  # Retry-After of a refused client: an item takes less
VALUES_PER_ITEM = 12  # keys and values of a label with its text and task in JSON


class ReplicaConfig(Config):
    """Replicas of a deployment, and the number of requests that each accepts."""

    num_replicas: int = Field(default=1, ge=1, description="Processes that share the work.")
    min_replicas: int | None = Field(
        default=None,
        ge=0,
        description="Fewest replicas; the load decides up to num_replicas. With 0, which only `large` may have, the "
        "first requests after a pause wait until a replica has started, within timeout_s. null: always num_replicas.",
    )
    cpus: float = Field(default=1.0, ge=0, description="Logical CPUs of a replica; also its torch threads.")
    gpus: float = Field(default=0.0, ge=0, description="GPU share of a replica; 0: it computes on CPUs.")
    max_ongoing_requests: int = Field(default=64, ge=1, description="Requests that a replica works on concurrently.")
    max_queued_requests: int = Field(
        default=256, ge=0, description="Requests that wait for a replica; more are refused."
    )

    @property
    def device(self) -> str:
        """The torch device of a replica."""
        return "cuda" if self.gpus else "cpu"

    @model_validator(mode="after")
    def _fewest_below_most(self) -> ReplicaConfig:
        if self.min_replicas is not None and self.min_replicas > self.num_replicas:
            raise ValueError(f"min_replicas ({self.min_replicas}) must not exceed num_replicas ({self.num_replicas})")
        return self


class BatchingConfig(ReplicaConfig):
    """Replicas that compute items of several requests together."""

    max_batch_size: int = Field(default=32, ge=1, description="Items computed together.")

    @model_validator(mode="after")
    def _full_batches(self) -> BatchingConfig:
        if self.max_ongoing_requests < self.max_batch_size:
            raise ValueError(
                f"max_ongoing_requests ({self.max_ongoing_requests}) must be at least max_batch_size "
                f"({self.max_batch_size}), or requests of one item never fill a batch"
            )
        return self


class LargeReplicaConfig(BatchingConfig):
    """Replicas of the large model."""

    cpus: float = Field(
        default=2.0,
        ge=0,
        description="Logical CPUs of a replica; also its threads.",
    )
    max_batch_size: int = Field(default=16, ge=1, description="Items computed together.")
    timeout_s: float = Field(default=20.0, gt=0, description="Time limit of an escalation, queue and retry included.")
    attempt_timeout_s: float = Field(
        default=10.0, gt=0, description="Time limit of a call; a second call is made if time is left."
    )
    breaker: BreakerConfig = Field(default=BreakerConfig(), description="When calls to the large model pause.")
    on_large_failure: OnLargeFailure | None = Field(
        default=None,
        description="Answer to an input on which the large model failed, also in `kcm predict`. answer_small: the "
        "small model answers, outside the promise. error: no answer. null: as in the bundle.",
    )
    upstreams: tuple[UpstreamConfig, ...] = Field(
        default=(),
        description="Allowed servers of a bundle's `openai` model; the server of CONFIG's `large` is always allowed.",
    )


class LimitsConfig(Config):
    """The largest request that is accepted."""

    max_body_bytes: int = Field(default=4 * 2**20, ge=1, description="Bytes of a request.")
    body_timeout_s: float = Field(
        default=10.0, gt=0, description="Time limit for a request's body to arrive; then the answer is 408."
    )
    max_slow_bodies_per_peer: int = Field(
        default=16,
        ge=0,
        description="Most bodies from one address that a replica waits for after 3 s, until body_timeout_s. Behind a "
        "proxy all clients have the proxy's address, unless the nodes' variable FORWARDED_ALLOW_IPS names the proxy: "
        "then its X-Forwarded-For counts.",
    )
    max_items: int = Field(default=128, ge=1, le=MAX_WAITING_ITEMS, description="Items of a request.")
    max_text_length: int = Field(default=10_000, ge=1, description="Characters of an item's text.")
    max_image_bytes: int = Field(
        default=2 * 2**20, ge=1, description="Bytes of an item's picture; its pixels are limited by the encoder."
    )

    @property
    def max_json_values(self) -> int:
        """Most keys and values in a request's JSON, brackets and commas included."""
        return max(MAX_JSON_VALUES, VALUES_PER_ITEM * (self.max_items + 1))


class AuthConfig(Config):
    """Who may call, and how often."""

    keys_file: Path | None = Field(
        default=None,
        description="File with a line `NAME SHA256` per key, visible to all nodes, read again when it changes. "
        "Without it anyone may call.",
    )
    requests_per_minute: float | None = Field(
        default=None,
        gt=0,
        description="Most requests per minute of a name, or of all callers together without keys; at least "
        "num_replicas.",
    )

    @field_validator("keys_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        """Make the path absolute: replicas work in their own folders."""
        return value and value.expanduser().absolute()


class AuditConfig(Config):
    """Audits: checks of a share of the kept items."""

    share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability that a kept item is also sent to the large model after it was answered; 0: no audits.",
    )
    seed: int | None = Field(default=None, description="Seed of the draws; null: a new seed at every start.")


class FeedbackConfig(Config):
    """The log of decisions and true labels, and the stored part of inputs."""

    url: PlainUrl | None = Field(
        default=None,
        description="SQLAlchemy URL, sqlite:////absolute/path or postgresql+psycopg://host/name (password by PGPASSWORD"
        " or PGPASSFILE); a file in the storage path without one.",
    )
    store_payloads: StoredInputs = Field(
        default="none",
        description="Inputs to store, for updates to learn from. escalated: texts of escalated inputs. text: all "
        "texts. all: all texts, pictures and features. Texts of feedback are always stored.",
    )
    keep_days: float | None = Field(
        default=90.0, gt=0, description="Age at which stored inputs are deleted; null: never."
    )
    keep_bytes: int | None = Field(
        default=10 * 2**30,
        ge=0,
        description="Most bytes of inputs that an application stores; beyond that the oldest are deleted; null: no "
        "limit.",
    )
    new_labels: Literal["refuse", "keep"] = Field(
        default="refuse",
        description="Handling of labels that the model does not know. refuse: answer 422. keep: store the label; "
        "it does not count for certificates and alarms, and is learned once `kcm update --classes` names it. A caller "
        "may give 20 different ones within 24 hours.",
    )
    max_share_per_caller: float = Field(
        default=0.2,
        gt=0,
        le=1,
        description="Largest share of the labels that may come from one caller, among labels that check a "
        "certificate or teach an update. Labels beyond it are stored and do not count. With fewer than 1 / "
        "share callers no label counts; a single caller has no limit.",
    )
    timeout_s: float = Field(default=2.0, gt=0, description="Time limit of a write to the database.")

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
            raise ValueError(f"unknown database: use {', '.join(DATABASES)}")
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_absolute():
            raise ValueError("the path must be absolute (sqlite:////path): replicas work in their own folders")
        return value


LOG_FILE = "feedback.db"  # the log in the storage, unless another one is configured


class ServeConfig(BatchingConfig):
    """The served cascade; the settings of replicas at this level are for the HTTP replicas."""

    application: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Name of the application in the log, which several applications may share; null: the run's name.",
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Host names, without a port, that clients may use: `kcm.example.org`, `*.example.org`, `*` for "
        "any. Loopback names are always allowed, and so is `host` if it is a single address.",
    )
    port: int = Field(default=8000, ge=1, le=65535, description="Port to listen on.")
    costs: CostsConfig | None = Field(default=None, description="Prices shown on the page; null: the run's prices.")
    timeout_s: float = Field(default=30.0, gt=0, description="Time limit of a request after a replica has accepted it.")
    judge_timeout_s: float = Field(default=8.0, gt=0, description="Time limit of the small side, queue included.")
    max_queued_requests: int = Field(
        default=32,
        ge=0,
        description="Most requests that wait for a replica; more are refused immediately, because a longer queue "
        "delays all.",
    )
    label_selector: dict[str, str] = Field(
        default={},
        description='Ray\'s label selector for nodes with replicas: {ray.io/market-type: "!spot"} excludes spot nodes.',
    )
    limits: LimitsConfig = Field(default=LimitsConfig(), description="The largest request that is accepted.")
    auth: AuthConfig = Field(default=AuthConfig(), description="Who may call, and how often.")
    feedback: FeedbackConfig = Field(default=FeedbackConfig(), description="Where decisions and true labels are kept.")
    audit: AuditConfig = Field(default=AuditConfig(), description="How the certificate is watched.")
    on_refuted: Literal["escalate_all", "report"] = Field(
        default="escalate_all",
        description="Reaction to a certificate whose standing is not `holds`. escalate_all: keep nothing. report: "
        "continue, and report it.",
    )
    large: LargeReplicaConfig = Field(default=LargeReplicaConfig(), description="Replicas of the large model.")

    @property
    def reserved_cpus(self) -> float:
        """Logical CPUs that all replicas together reserve."""
        return sum(part.num_replicas * part.cpus for part in (self, self.large))

    @property
    def devices(self) -> tuple[str, str]:
        """The torch devices of the encoder and of the large model."""
        return self.device, self.large.device

    @property
    def hosts(self) -> tuple[str, ...]:
        """All host names that clients may use."""
        own_hosts = () if self.host in ("0.0.0.0", "::") else (f"[{self.host}]" if ":" in self.host else self.host,)
        return (*LOOPBACK_NAMES, *own_hosts, *self.allowed_hosts)

    @property
    def listens_on_loopback(self) -> bool:
        """Whether only this machine can reach it."""
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
    def _always_one_replica(self) -> ServeConfig:
        if self.min_replicas == 0:
            raise ValueError("min_replicas must be at least 1: a replica has to be there to accept a request")
        return self

    @model_validator(mode="after")
    def _time_to_fall_back(self) -> ServeConfig:
        if self.large.timeout_s >= self.timeout_s:
            raise ValueError(
                f"large.timeout_s ({self.large.timeout_s}) must be below timeout_s ({self.timeout_s}): the service "
                "needs time to answer without it"
            )
        return self

    @model_validator(mode="after")
    def _share_of_a_rate(self) -> ServeConfig:
        # A replica admits whole requests: with a share below one request, all replicas together would exceed the limit.
        rate = self.auth.requests_per_minute
        if rate and self.num_replicas > max(1, rate):
            raise ValueError(
                f"auth.requests_per_minute ({rate:g}) must be at least num_replicas ({self.num_replicas}): each "
                "admits at least one request"
            )
        return self


def log_url(serve: ServeConfig, storage_path: Path) -> str:
    """The URL of the log of a run with this `storage_path`."""
    return serve.feedback.url or f"sqlite:///{storage_path.absolute() / LOG_FILE}"
