"""The tested path of thresholds, from `escalate all` towards keeping more.

A path ends at the first threshold that its test does not pass; all above it is certified (fixed-sequence testing, Learn
then Test, arXiv 2110.01052).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class ThresholdPath(Protocol):
    """A tested path over the certify rows, at a given epsilon and delta.

    `num_units` were drawn independently; with fewer than `fewest_units` no outcomes whatever could pass.
    """

    num_units: int
    fewest_units: int

    def certified(self) -> float:
        """The lowest threshold that is certified together with all above it; +inf where none is."""

    def deployable(self, lowest: float, highest: float) -> float | None:
        """The highest certified threshold in `lowest .. highest`, with `lowest` certified; None where there is none."""

    def p_value(self, threshold: float) -> float:
        """p-value of H0: the cascade at `threshold` loses at least epsilon."""

    def upper_bound(self, threshold: float) -> float:
        """Upper confidence bound, at delta, on the accuracy that the cascade at `threshold` loses."""


class WorstTaskPath:
    """One threshold that is certified within every task, each tested at the full delta: all tests have to pass."""

    def __init__(self, tasks: Mapping[str, ThresholdPath]) -> None:
        self._paths = list(tasks.values())
        self.num_units = min(path.num_units for path in self._paths)
        self.fewest_units = max(path.fewest_units for path in self._paths)

    def certified(self) -> float:
        """The lowest threshold certified for every task."""
        return max(path.certified() for path in self._paths)

    def deployable(self, lowest: float, highest: float) -> float | None:
        """The highest threshold in `lowest .. highest` certified for every task; the paths share their grid."""
        return self._paths[0].deployable(lowest, highest)

    def p_value(self, threshold: float) -> float:
        """The largest p-value of any task."""
        return max(path.p_value(threshold) for path in self._paths)

    def upper_bound(self, threshold: float) -> float:
        """The largest bound of any task."""
        return max(path.upper_bound(threshold) for path in self._paths)
