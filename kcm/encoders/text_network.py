"""The network of a text encoder in torch: backbone, pooling and what a model of sentence-transformers puts behind them.

Shapes: B texts of a batch, T tokens, D features.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.encoders.conventions import Conventions, Step
from kcm.encoders.runtime.backbone import dtype_of, load_backbone
from kcm.encoders.runtime.network import Precision
from kcm.errors import AssetError

_ACTIVATIONS = "torch.nn.modules."  # whose classes a folder may name; code of its own is not run


class TextNetwork(nn.Module):
    """The unit vector of each text of a batch.

    `num_skipped` tokens at the beginning, those of a prompt, take no part in the pooling; of the vector the first
    `truncate_dim` coordinates are kept, None for all.
    """

    def __init__(
        self,
        backbone: nn.Module,
        poolings: tuple[str, ...],
        steps: nn.Module,
        *,
        num_skipped: int = 0,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.poolings, self.steps = backbone, poolings, steps
        self.num_skipped, self.truncate_dim = num_skipped, truncate_dim

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Unit vectors, float32 [B, D], from ids, mask and type ids [B, T]."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **types)
        hidden_BTD = output.last_hidden_state.float()
        position_BT = attention_mask.cumsum(1) * attention_mask  # from 1; 0 for padding, wherever that is
        used_BT = attention_mask if not self.num_skipped else (position_BT > self.num_skipped).to(attention_mask.dtype)
        pooled = [pooled_by(name, hidden_BTD, used_BT, position_BT) for name in self.poolings]
        vectors_BD: Tensor = self.steps(pooled[0] if len(pooled) == 1 else torch.cat(pooled, -1))
        return F.normalize(vectors_BD[:, : self.truncate_dim], dim=-1)


def pooled_by(name: str, hidden_BTD: Tensor, used_BT: Tensor, position_BT: Tensor) -> Tensor:
    """The token vectors [B, T, D] of those that `used_BT` marks, joined; their positions count from 1."""
    match name:
        case "mean":
            weights_BT1 = used_BT[..., None].to(hidden_BTD.dtype)
            return (hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1)
        case "mean_sqrt_len_tokens":
            weights_BT1 = used_BT[..., None].to(hidden_BTD.dtype)
            return (hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1).sqrt()
        case "weightedmean":
            weights_BT1 = (used_BT * position_BT)[..., None].to(hidden_BTD.dtype)
            return (hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1)
        case "max":
            return hidden_BTD.masked_fill(used_BT[..., None] == 0, -torch.inf).amax(1)
        case "cls":
            chosen_BT = (used_BT.cumsum(1) == 1) & (used_BT == 1)
        case "lasttoken":
            chosen_BT = position_BT == position_BT.amax(1, keepdim=True)
        case _:
            raise AssertionError(name)  # `read_conventions` knows no other
    return (hidden_BTD * chosen_BT[..., None].to(hidden_BTD.dtype)).sum(1)


def build_text_network(
    folder: Path,
    conventions: Conventions,
    precision: Precision,
    *,
    num_skipped: int = 0,
) -> TextNetwork:
    """The network of the model in a folder.

    Raises AssetError when transformers cannot load the backbone, or weights of a step are missing or another's.
    """
    # Cast after loading: the keyword for the dtype, and its default, differ between versions of transformers.
    backbone = load_backbone(folder / conventions.backbone).to(dtype_of(precision))
    steps = nn.Sequential(*(_built(step, folder) for step in conventions.steps))
    return TextNetwork(
        backbone, conventions.poolings, steps, num_skipped=num_skipped, truncate_dim=conventions.truncate_dim
    )


class _Dense(nn.Module):
    def __init__(self, linear: nn.Linear, activation: nn.Module, residual: nn.Module | None) -> None:
        super().__init__()
        self.linear, self.activation, self.residual = linear, activation, residual

    def forward(self, x_BD: Tensor) -> Tensor:
        out_BE: Tensor = self.activation(self.linear(x_BD))
        return out_BE if self.residual is None else out_BE + self.residual(x_BD)


class _Unit(nn.Module):
    def forward(self, x_BD: Tensor) -> Tensor:
        return F.normalize(x_BD, dim=-1)


def _built(step: Step, folder: Path) -> nn.Module:
    settings = step.settings
    if step.kind == "Normalize":
        return _Unit()
    if step.kind == "LayerNorm":
        norm = nn.LayerNorm(settings["dimension"])
        _load(norm, folder / step.folder, "norm.")
        return norm
    widths = settings["in_features"], settings["out_features"]
    linear = nn.Linear(*widths, bias=settings.get("bias", True))
    residual: nn.Module | None = None
    if settings.get("use_residual", False):
        residual = nn.Identity() if widths[0] == widths[1] else nn.Linear(*widths, bias=False)
        _load(residual, folder / step.folder, "residual.")
    _load(linear, folder / step.folder, "linear.")
    return _Dense(linear, _activation(settings.get("activation_function", f"{_ACTIVATIONS}activation.Tanh")), residual)


def _activation(path: str) -> nn.Module:
    name = path.rpartition(".")[2]
    kind = getattr(nn, name, None)
    if not (path.startswith(_ACTIVATIONS) and isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise AssetError(f"the model's activation is {path}", hint="Only those of torch.nn are run")
    module: nn.Module = kind()
    return module


def _load(module: nn.Module, folder: Path, prefix: str) -> None:
    """Load what the file of a step holds under `prefix`."""
    file = folder / "model.safetensors"
    try:
        tensors = {name: value for name, value in load_file(file).items() if name.startswith(prefix)}
        module.load_state_dict({name.removeprefix(prefix): value.float() for name, value in tensors.items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise AssetError(f"cannot load the encoder: {' '.join(str(error).split())}", where=str(file)) from None
