"""Servers that this user has used with `kcm label`: `kcm predict` and `kcm serve` may use them without CONFIG.

A bundle alone never decides where texts go. The user's folder records the addresses used before, and the environment
variable of each key.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kcm.config import Config
from kcm.errors import ArtefactError
from kcm.large import UpstreamConfig
from kcm.local_files import drafted
from kcm.user_folder import user_folder


class _Server(BaseModel):
    """The stored part of a server; other versions may have stored more."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    base_url: str
    api_key_env: str | None = None


class _Servers(Config):
    """`servers.json`."""

    servers: tuple[_Server, ...] = ()


def known_servers() -> tuple[UpstreamConfig, ...]:
    """The servers used before, without prices and budgets. Raises ArtefactError for a damaged file."""
    path = _path()
    try:
        stored = _Servers.model_validate_json(path.read_bytes()).servers
        return tuple(UpstreamConfig(**server.model_dump()) for server in stored)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ArtefactError(f"cannot read the known servers: {reason}", where=str(path), hint="Delete it") from None


def remember(server: UpstreamConfig) -> None:
    """Add a server, or replace the entry of its address; prices belong to a model and are not stored."""
    new_server = _stored(server)
    other_servers = tuple(
        _stored(known_server) for known_server in known_servers() if known_server.base_url != new_server.base_url
    )
    with drafted(_path()) as draft:
        servers = _Servers(servers=(*other_servers, new_server))
        draft.write_text(servers.model_dump_json(indent=2, exclude_defaults=True) + "\n", encoding="utf-8")


def _stored(server: UpstreamConfig) -> _Server:
    return _Server(base_url=server.base_url, api_key_env=server.api_key_env)


def _path() -> Path:
    return user_folder() / "servers.json"
