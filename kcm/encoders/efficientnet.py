"""EfficientNet-Lite (arXiv 1905.11946 without squeeze-and-excitation and with ReLU6): pictures to feature vectors.

The EfficientNet of transformers has other blocks. Strides pad as TensorFlow's SAME does, for any resolution. Shapes: B
pictures, C channels, H x W pixels, D features.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.encoders.pretrained import loading

MODEL_TYPE = "efficientnet-lite"

_EPSILON = 1e-3
_STEM = 32
# Repeats, kernel size, stride, expansion and channels (Table 1 of the paper); Lite never deepens the first and last.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLite(nn.Module):
    """The backbone without its classes. `width` and `depth` scale channels and repeats of the stages."""

    def __init__(self, width: float, depth: float, hidden_size: int = 1280) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.stem = _ConvNorm(3, _STEM, kernel=3, stride=2)
        blocks: list[nn.Module] = []
        channels = _STEM
        for number, (repeats, kernel, stride, expansion, base) in enumerate(_STAGES):
            out = _round_channels(base * width)
            deep = repeats if number in (0, len(_STAGES) - 1) else math.ceil(repeats * depth)
            for repeat in range(deep):
                blocks.append(_Block(channels, out, kernel, stride if repeat == 0 else 1, expansion))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.head = _ConvNorm(channels, hidden_size)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Features [B, D]: the mean over positions of the last convolution. Pixels are normalised, 3 channels."""
        features_BDHW: Tensor = self.head(self.blocks(self.stem(pixels_BCHW)))
        return features_BDHW.mean((2, 3))


class _ConvNorm(nn.Module):
    """Convolution, batch normalisation and, unless `linear`, ReLU6."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=_EPSILON)
        self._linear = linear

    def forward(self, x_BCHW: Tensor) -> Tensor:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        pads = [_padding(size, kernel, stride) for size in (x_BCHW.shape[3], x_BCHW.shape[2])]
        x_BCHW = self.norm(self.conv(F.pad(x_BCHW, [side for pad in pads for side in (pad // 2, pad - pad // 2)])))
        return x_BCHW if self._linear else F.relu6(x_BCHW)


class _Block(nn.Module):
    """Inverted residual: widen, filter each channel separately, narrow without a nonlinearity (arXiv 1801.04381)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.expand = _ConvNorm(in_channels, wide) if expansion > 1 else nn.Identity()
        self.depthwise = _ConvNorm(wide, wide, kernel=kernel, stride=stride, groups=wide)
        self.project = _ConvNorm(wide, out_channels, linear=True)
        self._residual = stride == 1 and in_channels == out_channels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW: Tensor = self.project(self.depthwise(self.expand(x_BCHW)))
        return x_BCHW + y_BCHW if self._residual else y_BCHW


def load_efficientnet(model_path: Path) -> EfficientNetLite:
    """The model in a folder with config.json and model.safetensors, frozen. AssetError if either is missing."""
    with loading(model_path):
        config = json.loads((model_path / "config.json").read_text(encoding="utf-8"))
        model = EfficientNetLite(config["width"], config["depth"], config["hidden_size"])
        model.load_state_dict(load_file(model_path / "model.safetensors"))
    return model.eval().requires_grad_(False)


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth smaller (the rule of the authors' code)."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8


def _padding(size: int, kernel: int, stride: int) -> int:
    return max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
