"""Masking of secrets in everything that is written.

`PlainUrl` and `VariableName` are types for configuration fields into which people put secrets by mistake: they reject a
secret, and the error does not repeat it. `redacted` masks secrets in any text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

MASK = "***"
HIDDEN = "hidden"  # the type of a validation error whose input must not be shown

_NAMES = r"password|passwd|passphrase|pwd|secret|token|credential|api[_-]?key|access[_-]?key|secret[_-]?key"
_NAMED = re.compile(rf"(?:\w*[_-])?(?:{_NAMES})", re.IGNORECASE)
_PARAMETER = re.compile(rf"{_NAMES}|^sig$|signature|^auth|^key$", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(\b{_NAMED.pattern}=)[^\s&;,'\"]+", re.IGNORECASE)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_KEY = re.compile(
    r"\b(?:sk|pk|rk)-[\w-]{12,}|\b(?:hf|gh[oprsu]|github_pat|glpat|xox[abprs])[_-][\w-]{12,}|\bAKIA[A-Z0-9]{12,}"
)
_QUERY_VALUE = re.compile(r"(?P<name>[^&;=]*=)[^&;]*|[^&;]+")
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")


def redacted(text: str) -> str:
    """`text` with passwords, tokens and query values of URLs masked, and strings that look like keys."""
    text = _URL.sub(lambda match: _url(match[0]), text)
    text = _ASSIGNED.sub(rf"\1{MASK}", text)
    return _BEARER.sub(rf"\1 {MASK}", _KEY.sub(MASK, text))


def redacted_values(value: Any, key: str = "") -> Any:
    """Plain data with every string redacted; strings below a `key` that names a secret are masked, also in lists."""
    if isinstance(value, str):
        return MASK if value and _NAMED.fullmatch(key) else redacted(value)
    if isinstance(value, Mapping):
        return {name: redacted_values(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        values = (redacted_values(item, key) for item in value)
        return tuple(values) if isinstance(value, tuple) else list(values)
    return value


def _url(url: str) -> str:
    """A URL with its secrets masked. The part before an @ may hold any character but a blank."""
    scheme, remainder = url.split("://", 1)
    before, at, after = remainder.rpartition("@")
    if at and (":" in before or "/" not in before):
        user = before.partition(":")[0]
        web = scheme.lower() in ("http", "https") or "/" in user
        remainder = f"{MASK}@{after}" if web else f"{user}:{MASK}@{after}" if ":" in before else f"{user}@{after}"
    path, mark, query = (*re.split(r"([?#])", remainder, maxsplit=1), "", "")[:3]
    return f"{scheme}://{path}{mark}" + _QUERY_VALUE.sub(rf"\g<name>{MASK}", query)


def _without_secrets(value: str) -> str:
    try:
        parts = urlsplit(value)
        secret = parts.password or (parts.username and parts.scheme in ("http", "https"))
        is_secret_name = any(
            _PARAMETER.search(name) for name, _ in parse_qsl(f"{parts.query}&{parts.fragment}".replace(";", "&"))
        )
    except ValueError:
        secret, is_secret_name = "@" in value, False
    if secret or is_secret_name or _KEY.search(value) or redacted(value).count(f":{MASK}@"):
        raise PydanticCustomError(
            HIDDEN,
            "must hold no password, token or key: use an environment variable, such as PGPASSWORD or "
            "MLFLOW_TRACKING_PASSWORD",
        )
    return value


def _variable_name(value: object) -> object:
    if value is None or (isinstance(value, str) and _VARIABLE.fullmatch(value) and not _KEY.search(value)):
        return value
    raise PydanticCustomError(
        HIDDEN,
        "must be the name of an environment variable, in capitals with an underscore, such as OPENAI_API_KEY (the "
        "value is not shown, because it may be a key)",
    )


PlainUrl = Annotated[str, AfterValidator(_without_secrets)]
"""A URL without secrets."""

VariableName = Annotated[str, BeforeValidator(_variable_name)]
"""The name of an environment variable, never the key in it."""


class Redacting(logging.Filter):
    """Redacts everything that passes a logger, including tracebacks."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, redacted."""
        record.msg, record.args = redacted(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redacted(record.exc_text)
        return True


def redact_logger(name: str) -> None:
    """Redact all records of the logger of this name in this process."""
    logger = logging.getLogger(name)
    if not any(isinstance(filter_, Redacting) for filter_ in logger.filters):
        logger.addFilter(Redacting())
