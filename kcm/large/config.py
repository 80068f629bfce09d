"""The configuration that all large models share, and their prices by name."""

from __future__ import annotations

import math
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self, final
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, Field, model_validator

from kcm.components import FAMILIES, Component, Family
from kcm.config import Config, parse_config
from kcm.encoders import EncoderConfig
from kcm.errors import ConfigError
from kcm.inputs.content import Part
from kcm.large.base import Item, LargeModel
from kcm.large.head import LinearHead
from kcm.large.prompts import PromptMessage
from kcm.redact import PlainUrl, VariableName

if TYPE_CHECKING:  # a database, which paid models alone need
    from kcm.large.response_cache import ResponseStore


def _server_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https address, such as https://api.openai.com/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError("must hold no user, password or query: a key belongs into an environment variable")
    return value.rstrip("/")


ServerUrl = Annotated[PlainUrl, AfterValidator(_server_url)]
"""The address of a server with OpenAI's interface, up to before /chat/completions."""


class UpstreamConfig(Config):
    """A server, the key that is sent to it, and its budget."""

    base_url: ServerUrl = Field(
        default="https://api.openai.com/v1", description="Address, up to before /chat/completions."
    )
    api_key_env: VariableName | None = Field(
        default="OPENAI_API_KEY",
        description="Environment variable with the server's key, wherever it is asked from; null: it needs none.",
    )
    max_calls: int | None = Field(
        default=None,
        ge=0,
        description="Calls of the server that may be paid for, over all runs on the same storage, and by a service; "
        "null: no limit.",
    )
    max_cost: float | None = Field(
        default=None,
        ge=0,
        description="Currency that may be spent at the server, over all runs on the same storage, and by a service; "
        "null: no limit.",
    )
    input_price: float = Field(default=0.0, ge=0, description="Currency per million tokens read.")
    output_price: float = Field(default=0.0, ge=0, description="Currency per million tokens written.")

    @model_validator(mode="after")
    def _prices_for_a_budget(self) -> UpstreamConfig:
        if self.max_cost is not None and not (self.input_price or self.output_price):
            raise ValueError("max_cost needs input_price and output_price, in currency per million tokens")
        return self

    def key(self) -> str | None:
        """The key, from the environment alone; None if the server needs none. Raises ConfigError if it is not set."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if key and key.isascii() and key.isprintable():
            return key
        raise ConfigError(
            f"the environment variable {self.api_key_env} {'holds no key' if key else 'is not set'}",
            where="api_key_env",
            hint="Export the server's key under this name, or name another variable",
        )


@dataclass(frozen=True)
class Resources:
    """The arguments from which a large model is built; an adapter uses some of them."""

    device: str = "cpu"
    head: LinearHead | None = None  # for a model that `fits_on_train`
    responses: ResponseStore | None = None  # the store of paid answers; None keeps them in memory
    limit_s: float = math.inf  # the time that a server may take for one question
    warn: Callable[[str], None] = lambda line: None  # told when a server stops answering, and when it is back


ON_CPU = Resources()


class LargeConfig(Component):
    """A pretrained large model; see docs/extending.md for an adapter of your own.

    Its frozen encoder, if it has one, is the setting `encoder`. A model behind a server has the settings of an
    `UpstreamConfig`.
    """

    family: ClassVar[Family] = FAMILIES["large model"]
    remote: ClassVar[bool] = False  # a server, which the driver asks itself; otherwise a pool of actors holds the model
    fits_on_train: ClassVar[bool] = False  # needs a `head`, fitted to features of the train rows by its `encoder`

    adapter: str = Field("", description="Chooses this form of the section.")

    @property
    @abstractmethod
    def reads(self) -> frozenset[Part]:
        """The parts of a content that it reads; none for a model that looks rows up by id."""

    @abstractmethod
    def build(self, label_names: Sequence[str], assets_dir: Path, resources: Resources = ON_CPU) -> LargeModel:
        """The large model, ready to answer. Raises AssetError where weights are missing, ConfigError where
        the configuration does not fit them or a key is missing, ArtefactError for a model without the head that it
        needs, DataError for a bad recording.
        """

    @abstractmethod
    def identity(self, label_names: Sequence[str], assets_dir: Path, *, head: LinearHead | None = None) -> str:
        """The identity of the model, without loading weights; raises what `build` raises."""

    @property
    def location(self) -> str:
        """The location of the model, for messages."""
        return self.adapter

    def next_table(self, table: str, instead_of: Sequence[str]) -> Self:
        """The same model for the rows of another table, which follows the tables `instead_of`."""
        return self

    def messages(self, label_names: Sequence[str], item: Item) -> list[PromptMessage]:
        """The messages for an item, for display."""
        return []

    @property
    @final
    def is_recorded(self) -> bool:
        """Whether the answers are known already: it reads no part of a row, and cannot be served."""
        return not self.reads

    @property
    @final
    def backbone(self) -> EncoderConfig | None:
        """The frozen encoder; None for a model without one."""
        return getattr(self, "encoder", None)

    @final
    def with_backbone(self, change: Callable[[EncoderConfig], EncoderConfig]) -> Self:
        """The same model with its encoder changed; one without an encoder as it is."""
        return self.model_copy(update={"encoder": change(self.backbone)}) if self.backbone else self

    @property
    @final
    def upstream(self) -> UpstreamConfig | None:
        """The server, its key and budget, which the operator decides; None without one."""
        names = UpstreamConfig.model_fields.keys()
        if not names <= type(self).model_fields.keys():
            return None
        return UpstreamConfig(**{name: getattr(self, name) for name in names})

    @final
    def at(self, upstreams: Sequence[UpstreamConfig]) -> Self:
        """A bundle's model, called with the key, prices and budget that the operator configured for its address.

        Raises ConfigError for an address that is not among `upstreams`: the author of a bundle must not decide where
        texts are sent, nor which environment variable is sent along.
        """
        if (server := self.upstream) is None:
            return self
        for upstream in upstreams:
            if upstream.base_url == server.base_url:
                return parse_config(type(self), dict(self) | dict(upstream), where=f"upstream {server.base_url}")
        raise ConfigError(
            f"the bundle's large model is at {server.base_url}, which this configuration does not allow",
            where="large.base_url",
            hint="If it may get your texts, add its address and key variable to serve.large.upstreams of CONFIG",
        )


class EncodedConfig(LargeConfig):
    """Base of the adapters with a frozen encoder."""

    operational: ClassVar[frozenset[str]] = frozenset({"encoder"})  # decides no answer, or by the identity

    encoder: EncoderConfig

    @property
    def reads(self) -> frozenset[Part]:
        """The parts of a content that its encoder reads."""
        return self.encoder.reads

    @property
    def location(self) -> str:
        """The encoder, as people call it."""
        return self.encoder.name


_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4,8}|latest)$")


def listed_price(model: str) -> tuple[float, float] | None:
    """Dollars per million tokens read and written, as packaged with kcm; None if the model is not listed.

    A listed name also stands for its versions, whose names end with a date or `-latest`, and for names with a
    provider's prefix: `openai/gpt-4o-mini-2024-07-18` costs what `gpt-4o-mini` does, unless it is listed itself.
    """
    prices: dict[str, tuple[float, float]] = yaml.safe_load(files("kcm.large").joinpath("prices.yaml").read_text())
    names = [model, model.rpartition("/")[2]]
    names += [_DATED.sub("", name) for name in names]
    return next((prices[name] for name in names if name in prices), None)
