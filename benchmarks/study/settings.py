"""How every learner trains every network, from overrides that go from wide to narrow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from kcm.collaborator.collaborator import NetworkConfig, NetworkKind
from kcm.components import FAMILIES, Component
from kcm.config import Config, parse_config, read_values
from kcm.errors import ConfigError
from kcm.learners import LearnerConfig
from kcm.learners.training.config import TrainConfig

StudyNetwork = Literal["kan", "mlp", "linear", "random_relu", "ncm"]
"""Networks that a study compares; `ncm` is the nearest class mean, which has no weights and needs no learner."""

TRAINED: tuple[NetworkKind, ...] = ("kan", "mlp", "linear", "random_relu")
EXAMPLES = {name: f"examples.learners.{name}:{name.title()}Config" for name in ("der", "ewc", "lwf", "si")}
LEARNERS: tuple[str, ...] = (*FAMILIES["learner"].ours, *EXAMPLES)
DEFAULT_SETTINGS = Path(__file__).parents[1] / "settings" / "default.yaml"
_DEFAULT = "default"


class Setting(Config):
    """All that decides how one learner trains one network."""

    network: NetworkConfig = Field(NetworkConfig(hidden=(), shared=True), description="Shape of the network.")
    train: TrainConfig = Field(TrainConfig(), description="How every task is trained.")
    learner: LearnerConfig = Field(description="The learner and its options.")


class Settings:
    """Overrides by place: `default`, `LEARNER`, `LEARNER/NETWORK`, `LEARNER@MEMORY/NETWORK`; the narrowest wins.

    A value holds any of the sections `network`, `train` and `learner` of a Setting, as in
    `{"replay/kan": {"train": {"learning_rate": 0.003}}}`. Raises ConfigError for a place or key that does not exist.
    """

    def __init__(self, overrides: Mapping[str, Mapping[str, Any]], where: str = "settings") -> None:
        self.overrides, self.where = overrides, where
        for place in overrides:
            self._check(place)

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read a YAML file."""
        content = read_values(path)
        if not all(isinstance(value, dict) for value in content.values()):
            raise ConfigError("expected a mapping of places to overrides", where=str(path))
        return cls({str(place): value for place, value in content.items()}, str(path))

    def over(self, wider: Settings) -> Settings:
        """These overrides on top of `wider` ones, place by place."""
        return Settings(_merged(wider.overrides, self.overrides), self.where)

    def setting(self, network: NetworkKind, learner: str, memory_per_class: float | None, num_labels: int) -> Setting:
        """The setting of one cell; `memory_per_class` times `num_labels` is the capacity of a learner with a memory."""
        places = [_DEFAULT, learner, f"{learner}/{network}"]
        values: dict[str, Any] = {"network": {"hidden": []}}
        if memory_per_class is not None:
            places += [f"{learner}@{memory_per_class:g}", f"{learner}@{memory_per_class:g}/{network}"]
        for place in places:
            values = _merged(values, self.overrides.get(place, {}))
        options = {**values.get("learner", {}), "name": EXAMPLES.get(learner, learner)}
        if memory_per_class is not None:
            options["memory"] = round(memory_per_class * num_labels)
        shared_values = {**values["network"], "shared": True}
        return parse_config(Setting, {**values, "network": shared_values, "learner": options}, where=self.where)

    def _check(self, place: str) -> None:
        learner, _, network = place.partition("/")
        if place != _DEFAULT:
            class_of(learner.partition("@")[0])
        if network and network not in TRAINED:
            known_names = ", ".join(TRAINED)
            raise ConfigError(f"unknown network {network!r}", where=self.where, hint=f"Known are {known_names}")


def kind_of(network: StudyNetwork, learner: LearnerConfig) -> NetworkKind:
    """What is built for a network that is not `ncm`: where the learner needs a closed form, an MLP has frozen units."""
    if network == "mlp" and learner.closed_form:
        return "random_relu"
    assert network != "ncm"
    return network


def has_memory(learner: str) -> bool:
    """Whether a learner remembers rows, so that a memory size means something to it."""
    return "memory" in class_of(learner).model_fields


def class_of(learner: str) -> type[Component]:
    """The configuration of a learner, by its name here or in examples/learners. ConfigError for an unknown name."""
    return FAMILIES["learner"].find(EXAMPLES.get(learner, learner))


def _merged(wide: Mapping[str, Any], narrow: Mapping[str, Any]) -> dict[str, Any]:
    merged_sections = {
        key: _merged(wide[key], value) if isinstance(value, dict) and isinstance(wide.get(key), dict) else value
        for key, value in narrow.items()
    }
    return {**wide, **merged_sections}
