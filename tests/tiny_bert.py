"""A BERT small enough to be made on the spot: random weights, a vocabulary of a few words."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def save_bert(folder: Path, words: Sequence[str], *, max_tokens: int = 64, dim: int = 32, seed: int = 0) -> Path:
    """Write the model and its tokenizer, as the hub gives them, into `folder`."""
    vocabulary = [*_SPECIAL, *words]
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=dim,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=max_tokens,
        initializer_range=0.5,  # far enough from 0 that texts differ
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder
