"""A bundle whose large model answers known rows alone is refused before anything is started."""

from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from kcm.assets.resolve import assets_folder, assets_place
from kcm.cascade.policy import Policy
from kcm.config import parse_config
from kcm.errors import ArtefactError, ConfigError
from kcm.large.adapters.recorded import RecordedConfig
from pipelines.serve import sources
from pipelines.serve.config import AuditConfig, LargeReplicaConfig, ServeConfig
from pipelines.serve.deploy import app
from pipelines.serve.deploy.app import AppConfig, deployment_file, require_servable
from pipelines.serve.release import Release
from pipelines.serve.sources import ChampionSource, FixedSource, Source
from tests.kcm.bundle.test_bundle import bundle

RELEASE = Release(version="films/3", bundle=Path("/mnt/bundle"))
FIXED = FixedSource(RELEASE)
CONFIG = ServeConfig(port=8001, num_replicas=3, large=LargeReplicaConfig(cpus=0.5))


@pytest.mark.parametrize("source", [FIXED, ChampionSource("s3://bucket/kcm", "films")], ids=["fixed", "champion"])
def test_the_file_says_again_what_it_was_made_of(source: Source) -> None:
    written = yaml.safe_load(yaml.safe_dump(deployment_file(source, CONFIG, Path("/mnt/assets"))))
    assert written.keys() <= ServeDeploySchema.model_fields.keys()  # the schema ignores what it does not know
    (application,) = ServeDeploySchema.model_validate(written).applications
    read = parse_config(AppConfig, application.args)
    assert (read.source, read.serve, read.assets_path) == (source, CONFIG, Path("/mnt/assets"))
    assert application.deployments == []  # no version is in a configuration of Ray Serve


def test_registered_version_is_fetched_from_its_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: the file names no folder of the machine that wrote it."""
    release = RELEASE.model_copy(update={"artefact": "0123abcd", "bundle": Path("/home/laptop/cache/bundle")})
    written = deployment_file(FixedSource(release, "s3://bucket/kcm"), CONFIG, assets_folder("s3://bucket/assets"))
    assert "laptop" not in yaml.safe_dump(written)
    fetched = {("s3://bucket/kcm", "0123abcd"): Path("/node/bundle")}
    for module in (app, sources):
        monkeypatch.setattr(module, "ArtefactStore", str)
        monkeypatch.setattr(module, "registered_bundle", lambda *place: fetched[place])
    read = parse_config(AppConfig, written["applications"][0]["args"])
    there = read.source.first()
    assert (there.version, there.bundle, there.artefact) == ("films/3", Path("/node/bundle"), "0123abcd")
    assert assets_place(read.assets_path) == "s3://bucket/assets"


def test_it_is_reached_from_this_machine_alone_by_default() -> None:
    for host, location in (("127.0.0.1", "HeadOnly"), ("0.0.0.0", "EveryNode")):
        written = deployment_file(FIXED, ServeConfig(host=host), Path("/mnt/assets"))
        assert (written["http_options"]["host"], written["proxy_location"]) == (host, location)


def test_audits_without_a_log_are_refused() -> None:
    """Promise: audits are refused where there is no log to draw them in."""
    config = CONFIG.model_copy(update={"audit": AuditConfig(share=0.05)})
    with pytest.raises(ConfigError, match=r"audit\.share is 0\.05.*serve\.feedback\.url"):
        require_servable(RELEASE, config, Path("/mnt/assets"))


def test_recorded_answers_cannot_be_served(tmp_path: Path) -> None:
    recorded = {"large": RecordedConfig(path="answers.csv"), "large_head": None, "policy": Policy()}
    folder = bundle(**recorded).write(tmp_path / "bundle")
    with pytest.raises(ArtefactError, match="recorded answers cannot be served"):
        require_servable(Release(version="1", bundle=folder), ServeConfig(), tmp_path)
