"""Finds the class of a component by its tag in a configuration.

A component is a configuration that can build what it describes. The components of a family share an abstract
configuration; a field of that type accepts any of them. The tag, such as `name` of a learner, is a name in this
package, a name that an installed package registers as an entry point, or `package.module:Class`. A class is imported on
first use.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import entry_points
from operator import attrgetter
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from kcm.config import Config
from kcm.errors import ConfigError
from kcm.extras import MissingExtraError, naming_extra


@dataclass(frozen=True)
class Family:
    """Components that are interchangeable.

    `tag` is the configuration key that chooses a component, `group` the group of the entry points, `base` the abstract
    configuration, `ours` the components of this package by name, `default` the tag of a section without one.
    """

    name: str
    tag: str
    group: str
    base: str
    ours: Mapping[str, str]
    default: str | None = None

    def known(self) -> dict[str, str]:
        """The classes of all components with a name: first this package's, then the registered ones, ordered by name.

        A registered name cannot replace a name of this package. Raises ConfigError for a name that two packages
        register.
        """
        registered: dict[str, str] = {}
        for entry in sorted(entry_points(group=self.group), key=lambda entry: entry.name):
            path = f"{entry.module}:{entry.attr}"
            if entry.name not in self.ours and registered.setdefault(entry.name, path) != path:
                raise ConfigError(
                    f"{registered[entry.name]} and {path} are both registered as {self.name} {entry.name!r}",
                    hint="Uninstall one of their packages",
                )
        return {**self.ours, **registered}

    def find(self, tag: object) -> type[Component]:
        """The class that `tag` names. Raises ConfigError for an unknown tag, or a class outside the family."""
        name = str(tag)
        if ":" in name:
            return self.load(name)
        known = self.ours if name in self.ours else self.known()
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            names = ", ".join(map(repr, known))
            raise ConfigError(
                f"unknown {self.name} {tag!r}, known are {names}, or package.module:Class of your own{hint}"
            )
        return self.load(known[name])

    def load(self, path: str) -> type[Component]:
        """The class at `package.module:Class`. Raises ConfigError with the reason if it cannot be used."""
        module, _, name = path.partition(":")
        if _IN_BUNDLE.get() and not self._is_trusted(path, module):
            raise ConfigError(
                f"the {self.name} {path!r} lies in a module that is not trusted here",
                hint=f"If you trust it, install its package with an entry point, or set {TRUSTED}={module}",
            )
        try:
            with naming_extra(f"the {self.name} {path!r}"):
                target = importlib.import_module(module)
        except MissingExtraError:
            raise
        except Exception as error:  # a user's module may fail in any way
            raise ConfigError(
                f"cannot import {module!r} for the {self.name} {path!r} ({type(error).__name__}: {error})",
                hint="Install its package, on every node",
            ) from error
        try:
            component = attrgetter(name)(target)
        except AttributeError:
            raise ConfigError(f"{module!r} has no {name!r}") from None
        base = self.abstract()
        if not (isinstance(component, type) and issubclass(component, base)):
            raise ConfigError(f"{path!r} is not a {self.name}", hint=f"Derive it from {self.base.replace(':', '.')}")
        if inspect.isabstract(component):
            method_names = ", ".join(sorted(component.__abstractmethods__))
            raise ConfigError(f"{path!r} lacks methods that every {self.name} has: {method_names}")
        if not _IN_BUNDLE.get() and not module.startswith("kcm."):  # later processes may then load it as well
            os.environ[TRUSTED] = ",".join(sorted({*_trusted_modules(), module}))
        return component

    def _is_trusted(self, path: str, module: str) -> bool:
        """Whether a bundle may name this class: one of this package, registered, already imported, or in TRUSTED."""
        return module in sys.modules or module in _trusted_modules() or path in self.known().values()

    def abstract(self) -> type[Component]:
        """The abstract configuration that all components of the family derive from."""
        module, _, name = self.base.partition(":")
        return getattr(importlib.import_module(module), name)

    def tag_of(self, component: type[Component]) -> str:
        """The tag of a class without a configured name: its name in this package, or its path."""
        path = f"{component.__module__}:{component.__qualname__}"
        return next((name for name, own_path in self.ours.items() if own_path == path), path)


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family(
            "source",
            tag="kind",
            group="kcm.sources",
            base="kcm.tasks.sources:SourceConfig",
            ours={
                "reviews": "kcm.tasks.readers.reviews:ReviewsSource",
                "files": "kcm.tasks.readers.files:FilesSource",
                "hub": "kcm.tasks.readers.hub:HubSource",
            },
        ),
        Family(
            "encoder",
            tag="kind",
            group="kcm.encoders",
            base="kcm.encoders.config:EncoderConfig",
            ours={
                "text": "kcm.encoders.text:TextEncoderConfig",
                "pixels": "kcm.encoders.pixels:PixelsConfig",
                "image": "kcm.encoders.image:ImageEncoderConfig",
                "image_text": "kcm.encoders.image_text:ImageTextConfig",
                "precomputed": "kcm.encoders.precomputed:PrecomputedConfig",
            },
            default="text",
        ),
        Family(
            "large model",
            tag="adapter",
            group="kcm.large",
            base="kcm.large.config:LargeConfig",
            ours={
                "classifier": "kcm.large.adapters.classifier:ClassifierConfig",
                "zero_shot": "kcm.large.adapters.zero_shot:ZeroShotConfig",
                "openai": "kcm.large.adapters.openai:OpenAiConfig",
                "recorded": "kcm.large.adapters.recorded:RecordedConfig",
            },
        ),
        Family(
            "learner",
            tag="name",
            group="kcm.learners",
            base="kcm.learners.base:LearnerConfig",
            ours={
                "finetune": "kcm.learners.bounds:FinetuneConfig",
                "joint": "kcm.learners.bounds:JointConfig",
                "replay": "kcm.learners.replay:ReplayConfig",
                "analytic": "kcm.learners.analytic:AnalyticConfig",
                "slda": "kcm.learners.slda:SldaConfig",
            },
        ),
        Family(
            "gate score",
            tag="gate",
            group="kcm.gates",
            base="kcm.cascade.gate_kinds:GateForm",
            ours={
                "confidence": "kcm.cascade.gate_kinds:Confidence",
                "signals": "kcm.cascade.signals:Signals",
            },
        ),
    )
}


TRUSTED = "KCM_TRUSTED_MODULES"  # environment variable: modules that bundles may name, separated by commas
_IN_BUNDLE: ContextVar[bool] = ContextVar("whether what names components comes with a bundle", default=False)


def _trusted_modules() -> set[str]:
    return {name for name in os.environ.get(TRUSTED, "").split(",") if name}


@contextmanager
def of_a_bundle() -> Iterator[None]:
    """Within the block, import components only from this package, from entry points and from trusted modules."""
    reset = _IN_BUNDLE.set(True)
    try:
        yield
    finally:
        _IN_BUNDLE.reset(reset)


class Component(Config):
    """Base of the abstract configurations of all families.

    A family's abstract configuration names the family and declares the field that holds the tag. As the type of a field
    it accepts any component of the family, and it is written with all fields of its class. `operational` names fields
    that do not change results, or change them only through the identity; fingerprints omit them.
    """

    family: ClassVar[Family]
    operational: ClassVar[frozenset[str]] = frozenset()

    @property
    def tag(self) -> str:
        """The name of this component's class in a configuration."""
        return getattr(self, self.family.tag)

    @classmethod
    def forms(cls) -> list[type[Config]]:
        """The possible classes of a section: those with a name that can be imported."""
        if not cls._is_abstract():
            return [cls]
        forms: dict[str, type[Config]] = {}
        for tag, path in cls.family.known().items():
            with suppress(ConfigError):  # a broken package raises when its component is named
                forms[tag] = cls.family.load(path)
        return list(forms.values())

    @classmethod
    def _is_abstract(cls) -> bool:
        return "family" in cls.__dict__

    @model_validator(mode="before")
    @classmethod
    def _fill_in_tag(cls, values: Any) -> Any:
        """Fill in the tag of a section found without one, or of a component made by its class."""
        tag = cls.family.tag
        if not isinstance(values, dict):
            return values
        if tag in values and cls.family.find(values[tag]) is not cls:
            raise ValueError(f"{tag} = {values[tag]!r} names another {cls.family.name} than {cls.__name__}")
        return {tag: cls.family.tag_of(cls)} | values

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if not cls._is_abstract():
            return handler(source)
        return core_schema.no_info_plain_validator_function(
            cls._any_of_family,
            serialization=core_schema.simple_ser_schema("any"),
        )

    @classmethod
    def _any_of_family(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        family = cls.family
        tag = value.get(family.tag, family.default) if isinstance(value, Mapping) else None
        if tag is None:
            raise ValueError(
                f"the {family.name} is a section with the key {family.tag!r}, one of {', '.join(family.ours)}"
            )
        try:
            form = family.find(tag)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        section = form.model_validate(value)
        assert isinstance(section, cls)
        return section
