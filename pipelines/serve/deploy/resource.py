"""The file that an application is deployed from, kept in step with what is promoted.

What was changed in a running application alone is undone when its file is applied again, by KubeRay above all. So the
file is changed as well: one for `serve deploy`, or a manifest with a RayService, whose `serveConfigV2` is such a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kcm.durable import replace_durably
from kcm.errors import ConfigError
from pipelines.serve.release import Release

CONFIG = "serveConfigV2"


def rewrite(file: Path, release: Release) -> None:
    """Let `file` name the champion of `release`; a challenger is on trial, and not named.

    Its comments are lost. Raises ConfigError where the file cannot be read, or deploys no cascade of ours.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the deployment's file cannot be read: {error.strerror}", where=str(file)) from None
    draft = file.with_name(f".{file.name}.draft")
    draft.write_text(with_champion(text, release, where=str(file)), encoding="utf-8")
    replace_durably(draft, file)


def with_champion(text: str, release: Release, *, where: str) -> str:
    """The file's text with the champion of `release`. Raises ConfigError where it deploys no cascade of ours."""
    try:
        documents = [document for document in yaml.safe_load_all(text) if document]
    except yaml.YAMLError:
        raise ConfigError("the deployment's file is no YAML", where=where) from None
    changed = sum(_change(document, release.champion) for document in documents)
    if not changed:
        raise ConfigError(
            "no cascade is deployed by this file",
            where=where,
            hint="Name what `kcm serve --build` has written, or a manifest with a RayService",
        )
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120)


def _change(document: Any, champion: Release) -> int:
    """Change a document in place; the number of applications that were changed."""
    if not isinstance(document, dict):
        return 0
    if document.get("kind") == "RayService":
        inner = yaml.safe_load(document["spec"][CONFIG])
        changed = _change(inner, champion)
        document["spec"][CONFIG] = yaml.safe_dump(inner, sort_keys=False, allow_unicode=True, width=120)
        return changed
    ours = [
        each for each in document.get("applications", []) if {"bundle", "assets_path"} <= each.get("args", {}).keys()
    ]
    for application in ours:
        application["args"] |= {"bundle": str(champion.bundle), "version": champion.version}
        for deployment in application.get("deployments", []):
            if "user_config" in deployment:
                deployment["user_config"] = champion.user_config
    return len(ours)
