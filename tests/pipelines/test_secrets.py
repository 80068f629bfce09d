"""No configuration field repeats a secret that was put into it, and those for addresses take none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from jobs.service import ServiceSettings
from kcm.config import Config, parse_config
from kcm.errors import ConfigError
from kcm.redact import redacted_values
from pipelines.config import RunConfig
from pipelines.serve.deploy.app import AppConfig

SECRET = "Xq7hunter2secretZ9"
URLS = (
    f"https://user:{SECRET}@host/path",
    f"https://{SECRET}@host/path",
    f"postgresql+psycopg://host/name?password={SECRET}",
    f"postgresql+psycopg://user:{SECRET}@host/name",
)
ADDRESS = re.compile(r"(^|_)(url|uri|address|endpoint|dsn)s?(_|$)")


SEEN: set[type[Config]] = set()  # towers are encoders of encoders


def models(annotation: Any) -> Iterator[type[Config]]:
    """Every model within an annotation, and within the fields of those; of a component all forms that have a name."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        for form in annotation.forms():
            if form not in SEEN:
                SEEN.add(form)
                yield form
                for field in form.model_fields.values():
                    yield from models(field.annotation)
    for argument in get_args(annotation):
        yield from models(argument)


def holds_text(annotation: Any) -> bool:
    return annotation is str or any(map(holds_text, get_args(annotation)))


FIELDS = sorted(
    {
        (model.__qualname__, name): (model, name)
        for root in (RunConfig, ServiceSettings, AppConfig)
        for model in models(root)
        for name, field in model.model_fields.items()
        if holds_text(field.annotation)
    }.values(),
    key=lambda each: (each[0].__qualname__, each[1]),
)


def test_the_trainer_finds_the_fields_that_are_known_to_hold_addresses() -> None:
    found = {f"{model.__qualname__}.{name}" for model, name in FIELDS if ADDRESS.search(name)}
    assert found >= {"TrackingConfig.uri", "FeedbackConfig.url", "OpenAiConfig.base_url", "ClusterConfig.address"}


def outcome(model: type[Any], values: dict[str, Any]) -> str:
    """What is said of these values, or written down once they are accepted."""
    try:
        return str(redacted_values(parse_config(model, values).model_dump(mode="json")))
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda each: getattr(each, "__qualname__", each))
def test_no_field_repeats_a_secret(model: type[Any], name: str) -> None:
    for url in URLS:
        for value in (url, [url], {"key": url}):
            assert SECRET not in outcome(model, {name: value})
        if ADDRESS.search(name):  # else: make the new field a PlainUrl
            assert f"{name}: must hold no password" in outcome(model, {name: url})


@pytest.mark.parametrize(
    ("model", "name"), [each for each in FIELDS if each[1].endswith("_env")], ids=lambda each: str(each)
)
def test_a_key_in_the_place_of_a_variable_s_name_is_not_repeated(model: type[Any], name: str) -> None:
    for key in (f"sk-{SECRET}", SECRET):
        with pytest.raises(ConfigError, match="must be the name of an environment variable") as caught:
            parse_config(model, {name: key})
        assert SECRET not in str(caught.value)
