"""A text encoder in torch, through sentence-transformers, and its export.

sentence-transformers has its own ONNX backend, which needs a package that does not import next to current transformers;
so the export is done here. Shapes: B texts of a batch, T tokens, D features.
"""

from __future__ import annotations

from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer
from torch import Tensor, nn

from kcm.encoders.pretrained import load_backbone, load_sentence_model, load_sentence_module
from kcm.encoders.text_settings import TOKENIZER, TextSettings, backbone_folder, prompt_text
from kcm.encoders.torch_network import Exportable
from kcm.errors import AssetError

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")  # in the order of the module's arguments
_PROBES = (
    "Good.",
    "The film was long, but I did not want it to end; the last scene alone is worth the evening.",
    "¿Qué hora es? 3,14 — naïve café ☕ https://example.org/?q=1",
    "It was said again that nothing had been decided. " * 5,
)


def load_model(config: TextSettings, model_path: Path) -> SentenceTransformer:
    """The model in a folder with the configured pooling and lengths, in float32; raises the errors of `TextEncoder`."""
    backbone = backbone_folder(model_path)
    load_backbone(backbone)  # sentence-transformers would initialise missing weights at random
    if config.pooling == "auto":
        model: SentenceTransformer = load_sentence_model(SentenceTransformer, model_path)
    else:
        transformer = load_sentence_module(Transformer, backbone)
        pooling = Pooling(transformer.get_embedding_dimension(), config.pooling)
        model = SentenceTransformer(modules=[transformer, pooling], device="cpu")
    model.max_seq_length = min(config.max_length, model.max_seq_length or config.max_length)
    model.truncate_dim = config.truncate_dim or model.truncate_dim
    return model.eval()


class _SentenceVectors(nn.Module):
    """A model of sentence-transformers as a module from arrays to unit vectors, as exporters need it."""

    def __init__(self, model: SentenceTransformer, prompt_length: int | None) -> None:
        super().__init__()
        self.model, self.truncate_dim, self.prompt_length = model, model.truncate_dim, prompt_length

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Unit vectors, float32 [B, D], from ids, mask and type ids [B, T]."""
        features: dict[str, Tensor | int] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            features["token_type_ids"] = token_type_ids
        if self.prompt_length is not None:
            features["prompt_length"] = self.prompt_length
        vectors_BD: Tensor = self.model(features)["sentence_embedding"][:, : self.truncate_dim]
        return nn.functional.normalize(vectors_BD.float(), dim=-1)


def exportable(config: TextSettings, model_path: Path) -> Exportable:
    """The network with its tokenizer. Raises AssetError for a tokenizer that only Python can run."""
    model = load_model(config, model_path)
    tokenizer = getattr(model.tokenizer, "backend_tokenizer", None)
    if not isinstance(tokenizer, Tokenizer):
        raise AssetError("the model has no fast tokenizer", where=str(model_path))
    prompt = prompt_text(config, model_path)
    batches = [model.preprocess([*texts], prompt=prompt) for texts in (_PROBES, _PROBES[:1], _PROBES[-1:])]
    names = [name for name in _INPUTS if name in batches[0]]
    probes = [{name: batch[name].numpy() for name in names} for batch in batches]
    axes = {name: {0: "batch", 1: "tokens"} for name in probes[0]}
    tokenizer.enable_truncation(model.max_seq_length or config.max_length)
    tokenizer.enable_padding(
        direction=model.tokenizer.padding_side,
        pad_id=model.tokenizer.pad_token_id or 0,
        pad_token=model.tokenizer.pad_token or "[PAD]",
    )
    prompt_length = batches[0].get("prompt_length")
    module = _SentenceVectors(model, None if prompt_length is None else int(prompt_length))
    return Exportable(module, probes, axes, {TOKENIZER: tokenizer.to_str()})
