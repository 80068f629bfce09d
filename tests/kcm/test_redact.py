"""Secrets are masked in whatever is written, and what is no secret stays as it is."""

import io
import logging

import pytest
from pydantic import ValidationError

from kcm.config import Config, parse_config
from kcm.errors import ConfigError, KcmError
from kcm.redact import PlainUrl, Redacting, VariableName, redact_logger, redacted, redacted_values

SECRET = "Xq7hunter2secretZ9"


@pytest.mark.parametrize(
    "text",
    [
        f"cannot reach https://user:{SECRET}@host:8080/path",
        f"postgresql+psycopg://kcm:a/{SECRET}@host/name",
        f"postgresql://kcm:a@{SECRET}@host/name",
        f"'postgresql://host/name?sslmode=require&password={SECRET}', said the driver",
        f"http://host/?{SECRET}",
        f"host=db user=kcm password={SECRET} port=5432",
        f"MLFLOW_TRACKING_PASSWORD={SECRET} kcm run",
        f"Authorization: Bearer {SECRET}",
        f"no such variable: sk-proj-{SECRET}",
        f"hf_{SECRET}",
    ],
)
def test_a_secret_is_masked(text: str) -> None:
    assert SECRET not in redacted(text)
    assert "***" in redacted(text)
    assert redacted(redacted(text)) == redacted(text)
    assert SECRET not in str(KcmError(text))
    assert SECRET not in str(KcmError("fault", where=text, hint=text))


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000/api and sqlite:////home/me/mlflow.db",
        "postgresql+psycopg://kcm@db/name",
        "models:/reviews@champion",
        "max_tokens=5, token 7 of 9, task-risk-assessment-report",
        "https://host/@scope/package",
        "a row with an e-mail address, me@example.org",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_a_key_that_names_a_secret_masks_lists_and_tuples_too() -> None:
    record = {"password": ["x", ("y", 5, {"env": "NAME"})], "plain": ("x", ["y"])}
    assert redacted_values(record) == {"password": ["***", ("***", 5, {"env": "NAME"})], "plain": ("x", ["y"])}


class Section(Config):
    url: PlainUrl = "auto"


@pytest.mark.parametrize(
    "values",
    [
        {"url": f"https://{SECRET}@host"},
        {"url": f"postgresql://host/name?password={SECRET}"},
        {"url": f"postgresql://host/name?sslmode=require;sslpassword={SECRET}"},
        {"url": f"postgresql://kcm:a/{SECRET}@host/name"},
        {"url": f"http://[{SECRET}@host"},
    ],
)
def test_a_field_refuses_a_secret_without_repeating_it(values: dict[str, str]) -> None:
    (name, value), *_ = values.items()
    with pytest.raises(ConfigError, match=f"{name}: must") as caught:
        parse_config(Section, values)
    assert SECRET not in str(caught.value)
    assert value not in str(caught.value)
    with pytest.raises(ValidationError) as raw:
        Section(**values)
    assert value not in str(raw.value)


@pytest.mark.parametrize(
    "url",
    ["auto", "host:6379", "postgresql://kcm@db/x?sslmode=require", "sqlite:////a.db"],
)
def test_an_address_without_secrets_is_taken(url: str) -> None:
    assert Section(url=url).url == url


def test_a_logger_redacts_messages_and_tracebacks() -> None:
    logger, stream = logging.getLogger("kcm.test_redact"), io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    redact_logger(logger.name)
    redact_logger(logger.name)
    assert sum(isinstance(each, Redacting) for each in logger.filters) == 1
    try:
        raise ValueError(f"http://u:{SECRET}@h")
    except ValueError:
        logger.exception("at %s", f"http://u:{SECRET}@h")
    assert stream.getvalue().startswith("at http://***@h\nTraceback")
    assert SECRET not in stream.getvalue()


class _Asking(Config):
    key_env: VariableName | None = "SOME_KEY"


class _Run(Config):
    large: _Asking


@pytest.mark.parametrize(
    "secret",
    [
        "AKIAIOSFODNN74F8A",
        "gsk_4f8a9b",
        "KEY=4f8a9b",
        ["sk-4f8a"],
        4815162342,
        {"a": "4f8a"},
    ],
    ids=str,
)
def test_key_in_place_of_a_variable_is_refused_and_hidden(secret: object) -> None:
    for key in ("key_env", "key_evn"):  # misspelled, too
        with pytest.raises(ConfigError) as raised:
            parse_config(_Run, {"large": {key: secret}})
        assert "4f8a" not in str(raised.value).lower()
        assert "4815162342" not in str(raised.value)
        assert "large" in str(raised.value)
