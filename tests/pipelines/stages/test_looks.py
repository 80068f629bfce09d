"""Promise: a look is charged to the certify rows, whatever the run, the file or the folder is called."""

from __future__ import annotations

import shutil
from pathlib import Path

from kcm.certify.certificate import CertificateConfig
from kcm.certify.ledger import look_delta
from kcm.config import parse_config
from kcm.tasks.config import TasksConfig
from kcm.tasks.preparation.build import write_sequence
from pipelines.stages.evaluate import look_spend
from pipelines.stages.units import certify_fingerprint
from pipelines.store.artefact import ArtefactStore, Recipe
from pipelines.store.sequence import SequenceArtefact

CONFIG = CertificateConfig(delta=0.1)


def sequence_of(store: ArtefactStore, file: Path, num_rows: int = 400, group: str = "") -> SequenceArtefact:
    """The rows of a file as an artefact; every other one is a copy of the one before."""
    numbers = [number for number in range(num_rows // 2) for _ in range(2)]
    splits = ("train", "validate", "certify", "test")
    lines = (f"case {n} of it,t,{'abc'[n % 3]},{group}{n},{splits[n // 3 % 4]}" for n in numbers)
    file.write_text("\n".join(["text,task,label,group,split", *lines]), encoding="utf-8")
    columns = {"split_column": "split"} | ({"group_column": "group"} if group else {})
    source = {"kind": "files", "path": str(file), "task_column": "task"} | columns
    config = parse_config(TasksConfig, {"source": source})
    rows = config.source.build(file.parent)
    recipe = Recipe("tasks", 1, {"file": file.name, "rows": num_rows, "group": group})
    made = store.build(recipe, lambda folder, scratch: write_sequence(config, folder, rows, 0))[0]
    return made.as_a(SequenceArtefact)


def test_renamed_runs_and_files_and_a_copied_storage_go_on_counting(tmp_path: Path) -> None:
    def spend(place: str, file: str, run: str, num_rows: int = 400) -> float:
        store = ArtefactStore(tmp_path / place)
        rows = certify_fingerprint(sequence_of(store, tmp_path / file, num_rows))
        return look_spend(store, rows, CONFIG, run)

    first = [spend("first", "rows.csv", "reviews"), spend("first", "rows.csv", "renamed")]
    first += [spend("first", "renamed.csv", "another file"), spend("first", "rows.csv", "reviews")]
    assert first == [look_delta(0.1, number) for number in (1, 2, 3, 1)]
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    assert spend("copy", "moved.csv", "elsewhere") == look_delta(0.1, 4)
    assert spend("copy", "more.csv", "of other rows", 800) == look_delta(0.1, 1)


def test_groups_and_their_names_make_no_other_rows_of_the_same_contents(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path / "store")
    called = {certify_fingerprint(sequence_of(store, tmp_path / "rows.csv", group=group)) for group in ("", "a", "b")}
    assert len(called) == 1
