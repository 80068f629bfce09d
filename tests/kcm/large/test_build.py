"""Every adapter is built from its configuration in one place, and identified there without loading weights."""

import numpy as np
import pytest

from kcm.config import parse_config
from kcm.errors import ConfigError
from kcm.inputs.content import Content
from kcm.large import Item, LinearHead, Resources
from kcm.large.adapters.zero_shot import ZeroShotConfig
from kcm.large.config import LargeConfig
from kcm.large.response_cache import ResponseStore
from tests.fake_upstream import label
from tests.tiny_bert import save_bert

LABELS = ("bad", "good")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny encoder, and a recording."""
    encoder = save_bert(tmp_path_factory.mktemp("encoder"), ("a", "film"), dim=8)
    recording = tmp_path_factory.mktemp("recording") / "answers.csv"
    recording.write_text("id,label\n1,good\n")
    return {"encoder": str(encoder), "recording": str(recording)}


@pytest.fixture
def configs(folders, upstream, monkeypatch):
    """A configuration of every adapter, as a YAML file would give it."""
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    encoder = {"model": folders["encoder"], "max_length": 16}
    values = [
        {"adapter": "classifier", "encoder": encoder},
        {"adapter": "zero_shot", "encoder": encoder},
        {"adapter": "openai", "model": "big", "base_url": upstream.base_url},
        {"adapter": "recorded", "path": folders["recording"]},
    ]
    assert set(LargeConfig.family.ours) == {value["adapter"] for value in values}
    return [parse_config(LargeConfig, value) for value in values]


HEAD = LinearHead(np.eye(2, 8, dtype=np.float32), np.zeros(2, np.float32))


def test_every_adapter_is_built_identified_and_answers(configs, tmp_path, upstream):
    upstream.plan(label("good"))
    for config in configs:
        head = HEAD if config.adapter == "classifier" else None
        resources = Resources(head=head, responses=ResponseStore.in_file(tmp_path / "paid.sqlite"))
        model = config.build(LABELS, tmp_path, resources)
        assert config.identity(LABELS, tmp_path, head=head)
        (answer,) = model.answer([Item("1", Content("a film"))])
        assert (answer.label in (0, 1), answer.error) == (True, None)


def test_what_cannot_read_label_prompts_is_refused():
    with pytest.raises(ConfigError, match="kind 'pixels' cannot read label prompts"):
        parse_config(ZeroShotConfig, {"encoder": {"kind": "pixels"}})
    with pytest.raises(ConfigError, match="a pair cannot be compared"):
        parse_config(ZeroShotConfig, {"encoder": {"kind": "image_text", "model": "clip"}})
