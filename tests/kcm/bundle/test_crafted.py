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

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kcm.bundle.bundle import Bundle
from kcm.bundle.frozen_models import bundle_digest
from kcm.cascade.gate_kinds import GateInputs, GateRows, form_named
from kcm.cascade.policy import Policy
from kcm.components import TRUSTED
from kcm.errors import KcmError
from tests.kcm.bundle.test_bundle import FEATURES, bundle

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
        ({}, {"basis": "pspline", "hidden": [], "mixing": 10**9}),
        ({}, {"basis": "pspline", "hidden": [], "mixing": 9, "grid_size": 10**9}),
        ({"in_features": 10**9, "num_words": 10**9 - 1}, {"basis": "pspline", "hidden": [], "mixing": 9}),
    ],
)
def test_no_memory_is_taken_for_networks_that_are_not_stored(crafted: Path, config: Any, network: Any) -> None:
    edited(crafted, "config.json", lambda found: found.update(config, network=found["network"] | network))
    assert "its networks need at least" in refusal(crafted)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("policy.json", {"decision": {"decision": "threshold", "threshold": float("nan")}}, "finite number"),
        ("config.json", {"seed": 10**30}, "seed"),
        ("config.json", {"num_words": FEATURES}, "leave no embedding"),
    ],
)
def test_a_value_out_of_range_is_refused(crafted: Path, name: str, change: dict[str, Any], message: str) -> None:
    edited(crafted, name, lambda found: found.update(change))
    assert message in refusal(crafted)


@pytest.mark.parametrize("name", ["bundle.json", "labels.json"])
def test_deep_json_is_refused(crafted: Path, name: str) -> None:
    (crafted / name).write_text("[" * 100_000 + "]" * 100_000)
    if name != "bundle.json":
        sealed_again(crafted)
    assert name in refusal(crafted)


@pytest.mark.parametrize(
    ("name", "size", "limit"), [("policy.json", 2**24 + 1, "16 MiB"), ("bundle.json", 10**10, "1048576 bytes")]
)
def test_a_file_longer_than_any_is_not_read_into_memory(crafted: Path, name: str, size: int, limit: str) -> None:
    with (crafted / name).open("ab") as file:
        file.truncate(size)  # of blanks that take no room on disk
    if name != "bundle.json":
        sealed_again(crafted)
    assert f"more than {limit}" in refusal(crafted)


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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("novelty.json", [1]),
        ("novelty.json", {"threshold": 1}),
        ("metrics.json", [1]),
        ("policy.json", "escalate"),
        ("certificate.json", None),
    ],
)
def test_a_document_of_another_form_is_one_line(crafted: Path, name: str, content: object) -> None:
    """Promise: a sealed document that is none of its kind is refused by its name, with a hint or the bad key."""
    (crafted / name).write_text(json.dumps(content))
    sealed_again(crafted)
    assert name in refusal(crafted)


@pytest.mark.parametrize("rows", [torch.zeros(3, 5), torch.zeros(6), None])
def test_certify_rows_of_another_width_are_refused(crafted: Path, rows: torch.Tensor | None) -> None:
    """Promise: the sample of certify rows has the width of the features, or the bundle is refused."""
    save_file({"other": torch.zeros(1)} if rows is None else {"rows": rows}, crafted / "certify_rows.safetensors")
    sealed_again(crafted)
    assert "no matrix 'rows' of 6 columns" in refusal(crafted)


@pytest.mark.parametrize("name", ["judge\0.safetensors", "\ud800", "x" * 10_000, "", "..", "/dev/zero"])
def test_manifest_names_that_no_file_has_are_refused(crafted: Path, name: str) -> None:
    """Promise: a name with NUL, without a file or outside the folder is one line."""
    manifest = json.loads((crafted / "bundle.json").read_text())
    manifest["files"][name] = "0" * 64
    (crafted / "bundle.json").write_text(json.dumps(manifest))
    refusal(crafted)


def test_a_sparse_file_is_not_hashed(crafted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a file of 200 GB that takes no room on the disk is refused by its size, before anything is read."""
    with (crafted / "judge.safetensors").open("ab") as file:
        file.truncate(200 * 10**9)
    hashed: list[Path] = []
    monkeypatch.setattr("kcm.bundle.sealed_folder.sha256_of", hashed.append)
    assert "a bundle has at most" in refusal(crafted)
    assert hashed == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("signal_F", lambda tensor: tensor + 90),
        ("signal_F", lambda tensor: tensor[0]),
        ("low_F", lambda tensor: tensor[:1]),
    ],
)
def test_curves_of_another_gate_are_refused(
    tmp_path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Promise: tensors of a gate that do not fit its signals are refused when the bundle is read."""
    rows = GateInputs(np.random.default_rng(0).normal(size=(90, 3)), np.random.default_rng(1).normal(size=(90, 3)))
    right = np.arange(90) % 3 > 0
    head = form_named("signals").fit(GateRows(inputs=rows, small_correct=right, large_correct=~right)).head
    folder = bundle(policy=Policy(gate="signals"), gate_head=head, certificates={}).write(tmp_path / "bundle")
    tensors = load_file(folder / "gate.safetensors")
    save_file(tensors | {name: change(tensors[name]).clone()}, folder / "gate.safetensors")
    sealed_again(folder)
    assert "gate.safetensors" in refusal(folder)


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
    assert "not trusted here" in refusal(crafted)
    assert not marker.exists()
    monkeypatch.setenv(TRUSTED, "another,crafted_module")
    assert "has no 'Thing'" in refusal(crafted)
    assert marker.exists()
    sys.modules.pop("crafted_module")


def test_unlisted_file_is_no_part_of_the_bundle(crafted: Path) -> None:
    edited(crafted, "encoder.json", lambda encoder: encoder["config"].update(model="bundle:encoder"))
    (crafted / "encoder").mkdir()
    os.mkfifo(crafted / "encoder" / "alignment.json")
    assert "does not list this file" in refusal(crafted)


@pytest.mark.parametrize("name", ["encoder.json", "large.json"])
def test_words_outside_the_bundle_are_refused(crafted: Path, tmp_path: Path, name: str) -> None:
    words = {"words": str(tmp_path)}

    def edit(content: Any) -> None:
        (content["config"] if name == "encoder.json" else content["config"]["encoder"]).update(words)

    edited(crafted, name, edit)
    assert "fitted files outside the bundle" in refusal(crafted)


def test_changed_value_gives_one_line_error_or_works(crafted: Path) -> None:
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
