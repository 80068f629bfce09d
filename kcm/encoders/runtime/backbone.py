"""Loading a frozen backbone of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from kcm.encoders.runtime.network import Precision
from kcm.errors import AssetError


def dtype_of(precision: Precision) -> torch.dtype:
    """The dtype of a module in torch; int8 is made of an export in float32."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def load_backbone(model_path: Path) -> Any:
    """The model of a folder, with all its weights but a pooler's, which nothing here uses; of T5 its encoder.

    Raises AssetError when transformers cannot load the folder or it lacks weights.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding  # seconds that an export need not wait
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading weights; it would break into the bars of the stages
    try:
        whole = AutoConfig.from_pretrained(model_path, local_files_only=True)
        kind = AutoModelForTextEncoding if getattr(whole, "is_encoder_decoder", False) else AutoModel
        model, report = kind.from_pretrained(
            model_path, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise AssetError(f"cannot load the encoder: {' '.join(str(error).split())}", where=str(model_path)) from None
    # transformers would only warn, and draw at random what is missing.
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
        raise AssetError(f"the encoder lacks weights, such as {missing[0]!r}", where=str(model_path))
    return model
