"""A bundle around a real encoder that is quickly made: its networks are random, its threshold splits real sentences."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcm.bundle.answers import Input
from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import load_small_side
from kcm.cascade.policy import Decision, Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.encoders.text import TextEncoderConfig
from kcm.inputs.content import Content
from kcm.large import LinearHead
from kcm.large.adapters.classifier import ClassifierConfig
from kcm.learners.bounds import FinetuneConfig
from tools.assets import fetch

# Where a browser is not required, the tests that need one do not exist: what is not run is not counted.
IN_A_BROWSER = ["page/test_page.py", "page/test_report_in_browser.py"]
collect_ignore = [] if os.environ.get("KCM_TEST_BROWSER") == "1" else IN_A_BROWSER

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
LABELS = ("negative", "positive")


@pytest.fixture(scope="session")
def sentences(assets_dir: Path) -> list[str]:
    """200 review sentences."""
    file = fetch("reviews", assets_dir) / "amazonReviewSnippets_GroundTruth.txt"
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.split("\t")[2].strip() for line in lines[:200]]


@pytest.fixture(scope="session")
def quick_bundle(
    assets_dir: Path, sentences: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Writes a bundle with these parts, by default with a policy that keeps half of the sentences; gives its folder."""
    fetch(MINILM, assets_dir)
    small = TextEncoderConfig(model=MINILM, max_length=64)
    large = TextEncoderConfig(model=MINILM, max_length=64, pooling="cls")
    weight_CD = np.random.default_rng(0).normal(size=(2, 384)).astype(np.float32)
    head = LinearHead(weight_CD, np.zeros(2, np.float32))
    collaborator = Collaborator(384, 2, NetworkConfig(hidden=(8,)), "kan", seed=0).requires_grad_(False)
    for layer in collaborator.judge.children():
        for parameter in layer.parameters():
            parameter.mul_(2)  # spreads the gate scores of the sentences
    base = Bundle(
        collaborator=collaborator,
        seed=0,
        label_names=LABELS,
        task_names=("products", "films"),
        encoder=small,
        encoder_identity=small.identity(assets_dir),
        large=ClassifierConfig(encoder=large),
        large_identity=ClassifierConfig(encoder=large).identity(LABELS, assets_dir, head=head),
        large_head=head,
        policy=Policy(),
        learner=FinetuneConfig(),
    )
    judged = load_small_side(base, assets_dir).judge([Input(Content(text)) for text in sentences])
    halfway = float(np.median([judgement.gate_score for judgement in judged]))
    splitting = Policy(decision=Decision(decision="threshold", threshold=halfway))

    def write(**parts: Any) -> Path:
        return replace(base, **{"policy": splitting} | parts).write(tmp_path_factory.mktemp("bundles") / "bundle")

    return write
