"""What a file that deploys on Ray Serve says of the one application in it."""

import importlib
from typing import Any

from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from kcm.config import parse_config
from pipelines.serve.deploy.app import AppConfig


def deployed_application(values: dict[str, Any]) -> tuple[ServeApplicationSchema, AppConfig]:
    """It, and its configuration; Ray's own schema must know every key, and what it is built by must exist."""
    schema = ServeDeploySchema.model_validate(values)
    assert values.keys() <= ServeDeploySchema.model_fields.keys()  # the schema ignores what it does not know
    (application,) = schema.applications
    assert values["applications"][0].keys() <= type(application).model_fields.keys()
    module, _, name = application.import_path.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    return application, parse_config(AppConfig, application.args)
