"""An encoder is in memory once, for as long as anyone uses it."""

from __future__ import annotations

import gc
import shutil
import weakref

from kcm.encoders.text import TextEncoderConfig


def test_equal_encoders_are_one_object_and_others_are_not(model_folder, tmp_path):
    config = TextEncoderConfig(model=str(model_folder))
    first = config.build(tmp_path)
    assert TextEncoderConfig(model=str(model_folder)).build(tmp_path) is first
    assert config.model_copy(update={"pooling": "cls"}).build(tmp_path) is not first


def test_an_encoder_whose_files_have_changed_is_another_one(make_model, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    config = TextEncoderConfig(model=str(folder))
    first = config.build(tmp_path)
    shutil.copy(make_model(1) / "model.safetensors", folder / "model.safetensors")
    second = config.build(tmp_path)
    assert second is not first
    assert second.identity != first.identity


def test_an_encoder_that_nobody_uses_leaves_memory(model_folder, tmp_path):
    config = TextEncoderConfig(model=str(model_folder), max_length=7)
    gone = weakref.ref(config.build(tmp_path))
    gc.collect()
    assert gone() is None
