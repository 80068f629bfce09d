"""AdamW and SGD as the trainer uses them: what `torch.optim` computes, bit for bit, and what its states hold.

Those of torch import its compiler, a second or more of every process that takes a step, and allocate at every step. A
state that torch has written can be loaded here, and the other way round.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Optimizer(ABC):
    """Takes steps of size `rate` along the gradients of `parameters`; one without a gradient stays where it is."""

    names: ClassVar[tuple[str, ...]]  # of the tensors that it keeps of a parameter

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float) -> None:
        self.parameters, self.rate = list(parameters), rate
        self._state: dict[int, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Set gradients to zero where there are any."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter."""
        for number, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                self._move(parameter, parameter.grad, self._state.setdefault(number, {}))

    @abstractmethod
    def _move(self, parameter: nn.Parameter, gradient: Tensor, state: dict[str, Tensor]) -> None:
        """Move one parameter; `state` is empty before its first step."""

    def state_dict(self) -> dict[str, Any]:
        """The state of every parameter by its number, in the form of `torch.optim`."""
        numbers = list(range(len(self.parameters)))
        return {
            "state": {number: dict(state) for number, state in self._state.items()},
            "param_groups": [{"lr": self.rate, "params": numbers}],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict`, or torch's, was taken from an optimiser of the same parameters."""
        self.rate = float(state["param_groups"][0]["lr"])
        self._state = {
            int(number): {name: kept[name].clone() for name in self.names if kept.get(name) is not None}
            for number, kept in state["state"].items()
        }


class AdamW(Optimizer):
    """Adam with decoupled weight decay (arXiv 1711.05101), with torch's own defaults for the rest."""

    names = ("step", "exp_avg", "exp_avg_sq")
    _BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, weight_decay: float) -> None:
        super().__init__(parameters, rate)
        self._weight_decay = weight_decay

    def _move(self, parameter: nn.Parameter, gradient: Tensor, state: dict[str, Tensor]) -> None:
        if not state:
            zeros = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state |= {"step": torch.tensor(0.0), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
        state["step"] += 1
        step, mean, square = state["step"].item(), state["exp_avg"], state["exp_avg_sq"]
        if self._weight_decay:
            parameter.mul_(1 - self.rate * self._weight_decay)
        mean.lerp_(gradient, 1 - self._BETA1)
        square.mul_(self._BETA2).addcmul_(gradient, gradient, value=1 - self._BETA2)
        size = self.rate / (1 - self._BETA1**step)
        scale = square.sqrt().div_((1 - self._BETA2**step) ** 0.5).add_(self._EPSILON)
        parameter.addcdiv_(mean, scale, value=-size)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    names = ("momentum_buffer",)

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, momentum: float) -> None:
        super().__init__(parameters, rate)
        self._momentum = momentum

    def _move(self, parameter: nn.Parameter, gradient: Tensor, state: dict[str, Tensor]) -> None:
        if not state:
            state["momentum_buffer"] = gradient.clone()
        else:
            state["momentum_buffer"].mul_(self._momentum).add_(gradient)
        parameter.add_(state["momentum_buffer"], alpha=-self.rate)
