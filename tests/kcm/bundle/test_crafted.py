"""Promise: a crafted bundle ends in one line. It takes no memory, waits for nothing, reads nothing outside its folder
and imports no module that the operator has not named."""

import hashlib
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kcm.bundle.bundle import Bundle
from kcm.bundle.models import bundle_digest
from kcm.components import TRUSTED
from kcm.errors import KcmError
from tests.kcm.bundle.test_bundle import bundle

VALUES = (None, float("nan"), -1, 0, 10**9, "", "x" * 1000, [], {}, [[]], True, "os:system", {"a": 1}, [1, 2])


@pytest.fixture
def crafted(tmp_path: Path) -> Path:
    """A sound bundle, to be changed and sealed again."""
    return bundle().write(tmp_path / "bundle")


def sealed_again(folder: Path) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "bundle.json")
    hashes = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (folder / "bundle.json").write_text(json.dumps(manifest | {"files": hashes}))


def edited(folder: Path, name: str, edit: Callable[[Any], object]) -> None:
    content = json.loads((folder / name).read_text())
    edit(content)
    (folder / name).write_text(json.dumps(content))
    sealed_again(folder)


def refusal(folder: Path) -> str:
    with pytest.raises(KcmError) as refused:
        Bundle.read(folder)
    line = str(refused.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("config", "network"),
    [
        ({"in_features": 10**9}, {}),
        ({"in_features": 10**5}, {"base": "lda"}),
        ({"kind": "mlp"}, {"mlp_width": 10**9}),
        ({"kind": "linear", "in_features": 10**9}, {}),
        ({}, {"grid_size": 10**9}),
        ({}, {"hidden": [10**9]}),
        ({}, {"mixing": 10**9}),
        ({}, {"basis": "quadratic", "hidden": [], "mixing": 10**9}),
    ],
)
def test_no_memory_is_taken_for_networks_that_are_not_stored(crafted: Path, config: Any, network: Any) -> None:
    edited(crafted, "config.json", lambda found: found.update(config, network=found["network"] | network))
    assert "its networks take" in refusal(crafted)


def test_a_threshold_that_is_no_number_is_refused(crafted: Path) -> None:
    decision = {"decision": "threshold", "threshold": float("nan")}
    edited(crafted, "policy.json", lambda policy: policy.update(decision=decision))
    assert "finite number" in refusal(crafted)


@pytest.mark.parametrize("name", ["bundle.json", "labels.json"])
def test_deep_json_is_refused(crafted: Path, name: str) -> None:
    (crafted / name).write_text("[" * 100_000 + "]" * 100_000)
    if name != "bundle.json":
        sealed_again(crafted)
    assert name in refusal(crafted)


def test_a_file_longer_than_any_is_not_read_into_memory(crafted: Path) -> None:
    with (crafted / "policy.json").open("ab") as file:
        file.truncate(2**24 + 1)
    sealed_again(crafted)
    assert "more than 16 MiB" in refusal(crafted)


def test_a_seed_of_thirty_digits_is_refused(crafted: Path) -> None:
    edited(crafted, "config.json", lambda found: found.update(seed=10**30))
    assert "seed" in refusal(crafted)


@pytest.mark.parametrize("name", ["bundle.json", "judge.safetensors"])
def test_pipes_and_links_to_elsewhere_are_not_opened(crafted: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    os.rename(crafted / name, elsewhere)
    (crafted / name).symlink_to(elsewhere)
    assert "outside the folder" in refusal(crafted)
    (crafted / name).unlink()
    os.mkfifo(crafted / name)
    assert "not a plain file" in refusal(crafted)
    if name == "bundle.json":
        with pytest.raises(KcmError, match="not a plain file"):
            bundle_digest(crafted)


def test_a_manifest_longer_than_any_is_refused(crafted: Path) -> None:
    with (crafted / "bundle.json").open("ab") as file:
        file.truncate(10**10)  # of blanks that take no room on disk
    assert "more than" in refusal(crafted)


@pytest.mark.parametrize("key", ["name", "gate"])
def test_no_module_is_imported_that_the_operator_has_not_named(
    crafted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    marker = tmp_path / "imported"
    (tmp_path / "crafted_module.py").write_text(f"open({str(marker)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(TRUSTED, raising=False)
    tag = "crafted_module:Thing"
    if key == "gate":
        edited(crafted, "policy.json", lambda policy: policy.update(gate=tag))
    else:
        edited(crafted, "config.json", lambda config: config.update(learner={"name": tag}))
    assert "nobody here has named" in refusal(crafted)
    assert not marker.exists()
    monkeypatch.setenv(TRUSTED, "another,crafted_module")
    assert "has no 'Thing'" in refusal(crafted)
    assert marker.exists()
    sys.modules.pop("crafted_module")


def test_a_file_that_the_manifest_does_not_list_is_no_part_of_the_bundle(crafted: Path) -> None:
    edited(crafted, "encoder.json", lambda encoder: encoder["config"].update(model="bundle:encoder"))
    (crafted / "encoder").mkdir()
    os.mkfifo(crafted / "encoder" / "alignment.json")
    assert "does not list this file" in refusal(crafted)


def test_whatever_a_value_is_changed_to_reading_it_ends_in_one_line_or_works(crafted: Path) -> None:
    draw, files = random.Random(0), sorted(path for path in crafted.rglob("*.json") if path.name != "bundle.json")
    lines = []
    for _ in range(120):
        file = draw.choice(files)
        before, content = file.read_text(), json.loads(file.read_text())
        place = draw.choice(list(places(content)))
        file.write_text(json.dumps(changed(content, place, draw.choice(VALUES))))
        sealed_again(crafted)
        try:
            Bundle.read(crafted)
        except KcmError as error:
            lines.append(str(error))
        file.write_text(before)
    assert len(lines) > 50
    assert "\n" not in "".join(lines)


def places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(child, (*path, key))


def changed(value: Any, place: tuple[Any, ...], new: object) -> Any:
    if not place:
        return new
    node = value
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = new
    return value
