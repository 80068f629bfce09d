"""The configuration of the large model, told apart by its adapter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from kcm.errors import ConfigError
from kcm.large.adapters.causal_lm import CausalLmConfig
from kcm.large.adapters.classifier import ClassifierConfig
from kcm.large.adapters.openai import OpenAiConfig
from kcm.large.adapters.recorded import RecordedConfig
from kcm.large.adapters.zero_shot import ZeroShotConfig
from kcm.large.prompting.prompts import PromptMode

AskedConfig = ZeroShotConfig | CausalLmConfig | OpenAiConfig
"""Models that need nothing of the rows they are asked about."""

AnyLargeConfig = ClassifierConfig | AskedConfig | RecordedConfig
LargeConfig = Annotated[AnyLargeConfig, Field(discriminator="adapter")]


def check_prompt_modes(config: AnyLargeConfig, modes: Iterable[PromptMode]) -> None:
    """Raise ConfigError for a prompt mode that the adapter cannot follow."""
    for mode in modes:
        if mode not in config.prompt_modes:
            raise ConfigError(
                f"adapter {config.adapter!r} cannot use prompt mode {mode!r}",
                where="large.adapter",
                mend=f"Use {' or '.join(sorted(config.prompt_modes))}",
            )
