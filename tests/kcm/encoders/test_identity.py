"""Two encoders share an identity only if they encode alike."""

from __future__ import annotations

import shutil

import pytest

from kcm.encoders.text import TextEncoder, TextEncoderConfig


def identity(folder, **options) -> str:
    return TextEncoderConfig(model=str(folder), **options).identity(folder)


def test_a_copy_elsewhere_and_another_batch_size_keep_the_identity(model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    (copy / "README.md").write_text("notes")
    assert identity(copy, batch_size=1) == identity(model_folder)
    assert TextEncoder(TextEncoderConfig(model=str(copy)), copy).identity == identity(model_folder)


@pytest.mark.parametrize("options", [{"pooling": "cls"}, {"max_length": 64}, {"precision": "bfloat16"}])
def test_what_changes_the_vectors_changes_the_identity(options, model_folder):
    assert identity(model_folder, **options) != identity(model_folder)


def test_other_weights_change_the_identity(make_model, model_folder):
    assert identity(make_model(1)) != identity(model_folder)
    assert identity(make_model(0)) == identity(model_folder)


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json", "tokenizer_config.json"])
def test_another_tokenizer_or_architecture_changes_the_identity(file, model_folder, tmp_path):
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    (copy / file).write_text(
        (copy / file).read_text().replace("film", "movie").replace("BertModel", "Bert").replace("[MASK]", "[M]")
    )
    assert identity(copy) != identity(model_folder)
