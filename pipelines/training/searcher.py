"""The searches of all collaborators as one run of Ray Tune: actors start once, and none waits for a last trial."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

_COLLABORATOR = "collaborator"  # the dimension of a trial's configuration that says whose it is


class SideBySide(Searcher):
    """Gives every collaborator `num_trials` trials, each as its own searcher suggests.

    The next trial is of the collaborator that has the fewest running, then the fewest so far: with no more trials at
    once than collaborators, a searcher knows the results of its earlier trials before it suggests, until another
    collaborator has had all of its own.
    """

    def __init__(self, searchers: Mapping[str, Searcher], num_trials: int) -> None:
        super().__init__()
        self._searchers, self._num_trials = dict(searchers), num_trials
        self._owners: dict[str, str] = {}  # collaborator by trial
        self._running: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        """The next point of the collaborator whose turn it is; FINISHED after the last one."""
        given = Counter(self._owners.values())
        running = Counter(self._owners[trial] for trial in self._running)
        due = [name for name in self._searchers if given[name] < self._num_trials]
        if not due:
            return str(Searcher.FINISHED)
        name = min(due, key=lambda each: (running[each], given[each]))
        self._owners[trial_id] = name
        self._running.add(trial_id)
        point = self._searchers[name].suggest(trial_id)
        assert point is not None  # it has as many as it is asked for
        return {_COLLABORATOR: name} | point

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the searcher that has suggested the trial; it knows none that came after the state a kill has left."""
        self._running.discard(trial_id)
        if trial_id in self._owners:
            self._searchers[self._owners[trial_id]].on_trial_complete(trial_id, result, error)
        elif result:
            self._owners[trial_id], _ = split_off(result["config"])

    def save(self, checkpoint_path: str) -> None:
        """Write the state, as Tune does now and then."""
        Path(checkpoint_path).write_bytes(pickle.dumps(self.__dict__))

    def restore(self, checkpoint_path: str) -> None:
        """Read what `save` wrote; what its writer left running is not: Tune runs it again under the same id."""
        self.__dict__.update(pickle.loads(Path(checkpoint_path).read_bytes()))


def split_off(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Whose a trial is, and the point of the search space that it tries."""
    return config[_COLLABORATOR], {name: value for name, value in config.items() if name != _COLLABORATOR}
