"""Loading a frozen backbone of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar

from kcm.errors import AssetError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_backbone(model_path: Path) -> Any:
    """The model of a folder, with all its weights but a pooler's, which nothing here uses.

    Raises AssetError when transformers cannot load the folder or it lacks weights.
    """
    disable_progress_bar()  # of loading weights; it would break into the bars of the stages
    try:
        model, report = AutoModel.from_pretrained(
            model_path, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise AssetError(f"cannot load the encoder: {' '.join(str(error).split())}", where=str(model_path)) from None
    # transformers would only warn, and draw at random what is missing.
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
        raise AssetError(f"the encoder lacks weights, such as {missing[0]!r}", where=str(model_path))
    return model
