"""Which bundle is served: the champion of the run, any registered version, or a folder."""

import hashlib
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from mlflow import MlflowClient

from jobs.models import champion_bundle, served_model
from jobs.settings import ServiceSettings
from jobs.work.service import configured, prepared, write_deployment
from kcm.bundle.frozen_models import bundle_digest
from kcm.config import load_config, parse_config
from kcm.errors import ArtefactError, ConfigError, KcmError
from kcm.large import UpstreamConfig
from pipelines.config import RunConfig
from pipelines.registry.champion import Pointer
from pipelines.serve.release import Release
from pipelines.serve.sources import FixedSource
from pipelines.store.artefact import ArtefactStore
from pipelines.tracking.config import DIGEST_TAG
from pipelines.tracking.tracking import Tracking
from tests.champions import registered as registered_champion
from tests.jobs.conftest import registered

REVIEWS = Path(__file__).parents[3] / "jobs" / "configs" / "reviews.yaml"


@pytest.fixture
def config(registry: RunConfig) -> RunConfig:
    return registry


def test_own_champion_needs_no_registry(tmp_path: Path) -> None:
    """Promise: the pointer names a run's champion, if it exists; other models come from the registry."""
    config = parse_config(RunConfig, yaml.safe_load(REVIEWS.read_text()) | {"storage_path": str(tmp_path / "storage")})
    assert champion_bundle(config, "models:/reviews") is None
    bundle, store = tmp_path / "bundle", ArtefactStore(config.storage_path)
    bundle.mkdir()
    (bundle / "bundle.json").write_text("first")
    Pointer(store.control, "reviews").swap(0, registered_champion(store, bundle, "reviews/1"))
    for name in ("models:/reviews", "models:/reviews@champion"):
        folder = champion_bundle(config, name)
        assert folder is not None
        assert (folder / "bundle.json").read_text() == "first"
    assert champion_bundle(config, "models:/reviews/1") is None
    assert champion_bundle(config, "models:/other") is None


def test_a_version_is_downloaded_once(config: RunConfig) -> None:
    folder = served_model(config, "reviews@champion").bundle
    (folder / "mark").touch()
    assert (served_model(config, "reviews@champion").bundle / "mark").exists()
    assert [path.name for path in folder.parent.glob(".*")] == []


def test_a_registry_that_was_made_anew_is_asked_anew(tmp_path: Path) -> None:
    """Promise: a copy of another registry's version of the same name and number is not served."""
    config = registered(tmp_path)
    uri = config.tracking.uri_in(config.storage_path)
    before = served_model(config, "reviews/1").bundle
    client = MlflowClient(uri)
    bundle = tmp_path / "third"
    bundle.mkdir()
    (bundle / "bundle.json").write_text("third")
    client.delete_registered_model("reviews")
    tracking = Tracking.open(config.tracking, config.storage_path, name="reviews", key="anew")
    assert tracking.register("reviews", bundle, "third") == "1"
    tags = client.get_model_version("reviews", "1").tags
    assert tags["bundle_digest"] == bundle_digest(bundle) == hashlib.sha256(b"third").hexdigest()
    assert (served_model(config, "reviews/1").bundle / "bundle.json").read_text() == "third"
    assert (before / "bundle.json").read_text() == "first"  # replicas may still be reading it


@pytest.fixture
def stored(config: RunConfig) -> Path:
    """The manifest of version 1 where the registry keeps it."""
    client = MlflowClient(config.tracking.uri_in(config.storage_path))
    source = urlsplit(str(client.get_model_version("reviews", "1").source)).path
    return Path(source) / "bundle.json"


@pytest.mark.parametrize("where", ["in the artifact store", "in the local copy"])
def test_a_bundle_that_is_not_the_registered_one_is_refused(config: RunConfig, stored: Path, where: str) -> None:
    """Promise: whoever can write where bundles lie cannot have another one served."""
    copy = served_model(config, "reviews/1").bundle
    if where == "in the artifact store":
        shutil.rmtree(copy)
    changed = stored if where == "in the artifact store" else copy / "bundle.json"
    before = changed.read_text()
    changed.write_text("another one")
    try:
        with pytest.raises(ArtefactError, match="bundle of reviews/1 differs from the registered one"):
            served_model(config, "reviews/1")
    finally:
        changed.write_text(before)
        shutil.rmtree(copy)
    assert served_model(config, "reviews/1").version == "reviews/1"


def test_version_without_digest_is_refused(config: RunConfig) -> None:
    """Promise: versions from before digests were registered are not taken on trust."""
    client = MlflowClient(config.tracking.uri_in(config.storage_path))
    client.delete_model_version_tag("reviews", "2", DIGEST_TAG)
    with pytest.raises(ArtefactError, match="reviews/2 was registered without a digest"):
        served_model(config, "reviews/2")
    tracking = Tracking.open(config.tracking, config.storage_path, name=config.name, key="key")
    assert tracking.register(config.name, config.storage_path / "second", fingerprint="second") == "2"
    assert served_model(config, "reviews/2").version == "reviews/2"


def test_a_download_that_fails_leaves_nothing_behind(config: RunConfig) -> None:
    shutil.rmtree(config.storage_path / "served", ignore_errors=True)
    with pytest.raises(KcmError, match="no registered model 'reviews/9'"):
        served_model(config, "reviews/9")
    assert not (config.storage_path / "served" / "reviews" / "9").exists()


def test_several_replicas_on_a_cluster_need_postgresql(config: RunConfig, tmp_path: Path) -> None:
    """Promise: no file is written by which replicas on several machines would damage one SQLite file."""
    several = ServiceSettings.of(load_config(RunConfig, REVIEWS, ["serve.num_replicas=2"]))
    source = FixedSource(Release(version="reviews/1", bundle=tmp_path))
    with pytest.raises(ConfigError, match=r"2 replicas .* SQLite \(serve\.feedback\.url\)\. Name a PostgreSQL"):
        write_deployment(tmp_path / "serve.yaml", source, several)
    assert not (tmp_path / "serve.yaml").exists()


OPENAI = "large={adapter: openai, model: big, base_url: https://host/v1, api_key_env: KEY_OF_HOST, max_calls: 7}"


def test_only_the_server_of_the_run_may_be_used_in_serving() -> None:
    """Promise: CONFIG says which key goes where; what is said for serving wins."""
    asked = UpstreamConfig(base_url="https://host/v1", api_key_env="KEY_OF_HOST", max_calls=7)
    assert ServiceSettings().serve.large.upstreams == ()
    assert ServiceSettings.of(load_config(RunConfig, REVIEWS)).serve.large.upstreams == ()
    assert ServiceSettings.of(load_config(RunConfig, REVIEWS, [OPENAI])).serve.large.upstreams == (asked,)
    upstreams = (
        "serve.large.upstreams=[{base_url: https://host/v1/, api_key_env: SERVING_KEY}, {base_url: http://other}]"
    )
    both = ServiceSettings.of(load_config(RunConfig, REVIEWS, [OPENAI, upstreams])).serve.large.upstreams
    assert [(each.base_url, each.api_key_env) for each in both] == [
        ("https://host/v1", "SERVING_KEY"),
        ("http://other", "OPENAI_API_KEY"),
    ]


def test_file_with_sections_of_a_service_serves_a_bundle(tmp_path: Path) -> None:
    """Promise: a file with only `serve` is enough of a configuration for a bundle; its servers may be asked."""
    values = {"serve": {"large": {"upstreams": [{"base_url": "http://127.0.0.1:9/v1", "api_key_env": None}]}}}
    run, own = configured(values, "serve.yaml")
    assert run is None
    assert own is not None
    settings = ServiceSettings.of(None, tmp_path, own).serve
    assert [(each.base_url, each.api_key_env) for each in settings.large.upstreams] == [("http://127.0.0.1:9/v1", None)]
    assert settings.feedback.url == f"sqlite:///{tmp_path}/feedback.db"
    with pytest.raises(ConfigError, match=r"the file names no model.*Add --bundle DIR"):
        prepared(None, None, None, own)
    with pytest.raises(ConfigError, match=r"did you mean 'serve\.large'"):
        configured({"serve": {"largo": {}}}, "serve.yaml")
