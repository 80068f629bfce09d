from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from kcm.config import parse_config
from kcm.errors import ConfigError
from pipelines.serve.config import AuditConfig, LargeReplicaConfig, ReplicaConfig, ServeConfig
from pipelines.serve.deploy.app import AppConfig, require_servable
from pipelines.serve.deploy.deployment import deployment_file, with_release
from pipelines.serve.release import Release

RELEASE = Release(version="films/3", bundle=Path("/mnt/bundle"))
CONFIG = ServeConfig(port=8001, num_replicas=3, large=LargeReplicaConfig(cpus=0.5))


def test_the_file_says_again_what_it_was_made_of() -> None:
    written = yaml.safe_load(yaml.safe_dump(deployment_file(RELEASE, CONFIG, Path("/mnt/assets"))))
    assert written.keys() <= ServeDeploySchema.model_fields.keys()  # the schema ignores what it does not know
    schema = ServeDeploySchema.model_validate(written)
    (application,) = schema.applications
    read = parse_config(AppConfig, application.args)
    assert (read.release, read.serve, read.assets_path) == (RELEASE, CONFIG, Path("/mnt/assets"))
    assert [(each.name, each.user_config) for each in application.deployments] == [
        ("door", {"version": "films/3", "bundle": "/mnt/bundle"}),
        ("large", {"version": "films/3", "bundle": "/mnt/bundle"}),
    ]


def test_it_is_reached_from_this_machine_alone_by_default() -> None:
    for host, location in (("127.0.0.1", "HeadOnly"), ("0.0.0.0", "EveryNode")):
        written = deployment_file(RELEASE, ServeConfig(host=host), Path("/mnt/assets"))
        assert (written["http_options"]["host"], written["proxy_location"]) == (host, location)


def test_another_version_changes_nothing_but_the_user_configs() -> None:
    (values,) = deployment_file(RELEASE, CONFIG, Path("/mnt/assets"))["applications"]
    values["deployments"][0]["max_ongoing_requests"] = 7
    later = Release(version="films/4", bundle=Path("/mnt/other"))
    before = ServeApplicationSchema.model_validate(values)
    changed = with_release(before, later).model_dump(exclude_unset=True)
    assert {key: value for key, value in changed.items() if key != "deployments"} == {
        key: value for key, value in before.model_dump(exclude_unset=True).items() if key != "deployments"
    }
    door, large = changed["deployments"]
    assert door["max_ongoing_requests"] == 7
    assert door["user_config"] == large["user_config"] == {"version": "films/4", "bundle": "/mnt/other"}


def test_an_encoder_apart_from_the_door_changes_its_version_with_it() -> None:
    apart = CONFIG.model_copy(update={"encoder": ReplicaConfig(gpus=0.5)})
    (values,) = deployment_file(RELEASE, apart, Path("/mnt/assets"))["applications"]
    changed = with_release(ServeApplicationSchema.model_validate(values), Release(version="4", bundle=Path("/mnt")))
    deployments = changed.model_dump(exclude_unset=True)["deployments"]
    assert {each["name"]: each["user_config"]["version"] for each in deployments} == dict.fromkeys(
        ("door", "encoder", "large"), "4"
    )


def test_audits_are_refused_where_there_is_no_log_to_draw_them_in() -> None:
    config = CONFIG.model_copy(update={"audit": AuditConfig(share=0.05)})
    with pytest.raises(ConfigError, match=r"audit\.share = 0\.05.*serve\.feedback\.url"):
        require_servable(RELEASE, config, Path("/mnt/assets"))
