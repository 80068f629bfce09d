"""Servers that `kcm label` asked may be asked by `kcm predict` and `kcm serve`, and no others."""

import pytest

from jobs.servers import known_servers, remember
from jobs.settings import ServiceSettings
from kcm.errors import ArtefactError
from kcm.large.adapters.openai import OpenAiConfig
from kcm.user_folder import user_folder


def server(**values: object) -> OpenAiConfig:
    return OpenAiConfig(adapter="openai", model="large", base_url="http://127.0.0.1:1/v1", **values)  # type: ignore[arg-type]


def test_known_server_may_be_asked() -> None:
    """Without a configuration a bundle may ask a server that was used before, with the same key variable."""
    remember(server(api_key_env="OWN_KEY", input_price=1.0, max_cost=5.0))
    (upstream,) = ServiceSettings.of(None).serve.large.upstreams
    assert (upstream.base_url, upstream.api_key_env) == ("http://127.0.0.1:1/v1", "OWN_KEY")
    assert (upstream.input_price, upstream.max_cost) == (0.0, None)  # the price was a model's, the limit a job's


def test_address_is_known_once() -> None:
    """The last key variable of an address counts."""
    remember(server(api_key_env="OLD_KEY"))
    remember(server(api_key_env=None))
    assert [upstream.api_key_env for upstream in known_servers()] == [None]


def test_damaged_file_is_named() -> None:
    """A damaged file is reported with its path."""
    path = user_folder() / "servers.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(ArtefactError, match=r"servers\.json"):
        known_servers()


def test_file_of_another_version_is_read() -> None:
    """Fields that another version stored are ignored."""
    path = user_folder() / "servers.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"servers": [{"base_url": "http://127.0.0.1:1/v1", "account": null, "max_cost": 5.0}]}')
    (upstream,) = known_servers()
    assert (upstream.base_url, upstream.max_cost) == ("http://127.0.0.1:1/v1", None)
