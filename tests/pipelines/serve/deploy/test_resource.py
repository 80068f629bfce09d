"""Promise: applying a deployment's file again does not undo a promotion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kcm.config import parse_config
from kcm.errors import ConfigError
from pipelines.serve.config import ServeConfig
from pipelines.serve.deploy.app import AppConfig
from pipelines.serve.deploy.deployment import deployment_file
from pipelines.serve.deploy.resource import rewrite
from pipelines.serve.release import Challenger, Release

ROOT = Path(__file__).parents[4]
OLD = Release(version="films/3", bundle=Path("/mnt/three"))
NEW = Release(version="films/4", bundle=Path("/mnt/four"), challenger=Challenger(version="5", bundle=Path("/mnt/five")))


def releases(content: dict[str, Any]) -> list[Release]:
    """The release of the arguments, then those of all deployments."""
    (application,) = content["applications"]
    releases = [parse_config(Release, each["user_config"]) for each in application.get("deployments", [])]
    return [parse_config(AppConfig, application["args"]).release, *releases]


def test_a_file_for_serve_deploy_names_the_new_champion_and_no_challenger(tmp_path: Path) -> None:
    file = tmp_path / "kcm.yaml"
    before = deployment_file(OLD, ServeConfig(port=8765), Path("/mnt/assets"))
    file.write_text(yaml.safe_dump(before), encoding="utf-8")
    rewrite(file, NEW)
    after = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert releases(after) == [NEW.champion] * 3
    assert after["http_options"]["port"] == 8765
    rewrite(file, OLD)
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == before


def test_a_ray_service_names_the_new_champion_and_keeps_all_else(tmp_path: Path) -> None:
    file = tmp_path / "rayservice.yaml"
    file.write_text((ROOT / "jobs" / "kuberay" / "rayservice.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    service, *others = yaml.safe_load_all(file.read_text(encoding="utf-8"))
    rewrite(file, NEW)
    rewritten, *still = yaml.safe_load_all(file.read_text(encoding="utf-8"))
    assert still == others
    assert set(releases(yaml.safe_load(rewritten["spec"].pop("serveConfigV2")))) == {NEW.champion}
    service["spec"].pop("serveConfigV2")
    assert rewritten == service


@pytest.mark.parametrize("text", ["applications: []", "a: [", "kind: Service", ""])
def test_a_file_that_deploys_no_cascade_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        rewrite(file, NEW)
    assert file.read_text(encoding="utf-8") == text
    with pytest.raises(ConfigError, match="cannot be read"):
        rewrite(tmp_path / "missing.yaml", NEW)
