"""Studies: networks and learners compared over seeds on one task sequence, in one process."""

from kcm.study.aggregate import aggregate, flatness
from kcm.study.cell import Cell, Record, run_cell
from kcm.study.data import StudyData, read_data
from kcm.study.records import Records
from kcm.study.settings import LEARNERS, NETWORKS, Setting, Settings, StudyNetwork
from kcm.study.stream import Stream, make_stream
from kcm.study.study import Prepared, StudyConfig, prepare, run_cells, run_study
from kcm.study.tuning import Trial, best_overrides, sensitivity, trials_of

__all__ = [
    "LEARNERS",
    "NETWORKS",
    "Cell",
    "Prepared",
    "Record",
    "Records",
    "Setting",
    "Settings",
    "Stream",
    "StudyConfig",
    "StudyData",
    "StudyNetwork",
    "Trial",
    "aggregate",
    "best_overrides",
    "flatness",
    "make_stream",
    "prepare",
    "read_data",
    "run_cell",
    "run_cells",
    "run_study",
    "sensitivity",
    "trials_of",
]
