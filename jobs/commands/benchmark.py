"""`kcm benchmark`: networks and learners compared on any labelled table, and retrieval by a run's collaborators."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.exit import reported
from jobs.options import AssetsPath, Debug, JsonFile, announce

DEFAULT_SETTINGS = Path(__file__).parents[1] / "configs" / "benchmark" / "default.yaml"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"

# A benchmark issues no certificate and tunes nothing, so most rows are for training.
FRACTIONS = {"train": 0.7, "validate": 0.05, "certify": 0.05, "test": 0.2}

app = typer.Typer(help="Compare networks and learners, and measure retrieval.", no_args_is_help=True)


@app.command()
def continual(
    data: Annotated[
        str,
        typer.Option(
            metavar="FILE_OR_HUB_ID", help="A CSV, TSV, JSON, JSONL or Parquet file, a folder of them, or a hub id."
        ),
    ],
    subset: Annotated[str | None, typer.Option(metavar="NAME", help="Configuration of a hub data set.")] = None,
    text_column: Annotated[str, typer.Option(metavar="NAME", help="Column with the text.")] = "text",
    label_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column with the class; else label, category or intent.")
    ] = None,
    feature_column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Columns that are features already, as pixel_*; replaces the text; repeatable."
        ),
    ] = None,
    task_column: Annotated[str | None, typer.Option(metavar="NAME", help="Column with the task of a row.")] = None,
    group_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column that tells which rows belong together.")
    ] = None,
    split_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column with train, val or test; else `split`, where there is.")
    ] = None,
    scenario: Annotated[
        str, typer.Option(help="class_incremental, domain_incremental or task_incremental.")
    ] = "class_incremental",
    num_tasks: Annotated[
        int | None, typer.Option(metavar="N", help="Share the classes out to N tasks, drawn by the seed.")
    ] = None,
    mapping: Annotated[
        str | None, typer.Option(metavar="FILE", help="JSON or YAML file: task -> its classes, or domains.")
    ] = None,
    long_tail: Annotated[
        float | None, typer.Option(metavar="IF", help="Cut the train rows to a long tail of this imbalance factor.")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="kan, mlp, linear or ncm (nearest class mean); repeatable.")
    ] = None,
    learner: Annotated[list[str] | None, typer.Option(help="Name of a learner; repeatable.")] = None,
    memory_per_class: Annotated[
        list[float] | None,
        typer.Option(metavar="N", help="Remembered rows per class: N times the classes in all; repeatable."),
    ] = None,
    num_seeds: Annotated[int, typer.Option(min=1, help="Seeds: of task order, classes, weights and memory.")] = 3,
    match: Annotated[
        str, typer.Option(help="The MLP has the KAN's parameters, its measured latency, or (in closed form) cpu time.")
    ] = "parameters",
    encoder: Annotated[str, typer.Option(metavar="MODEL", help="Frozen text encoder: folder, asset or hub id.")] = (
        ENCODER
    ),
    settings: Annotated[
        Path, typer.Option(metavar="FILE", help="How each learner trains each network.")
    ] = DEFAULT_SETTINGS,
    storage: Annotated[
        Path, typer.Option(metavar="DIR", help="Keeps features and finished cells, from which a run resumes.")
    ] = Path("storage/benchmark"),
    assets_path: AssetsPath = Path("assets"),
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Learn the tasks of a table one after the other, by every network and learner, and compare what is left."""
    with reported(json, debug) as result:
        announce(f"reading {data}, and loading {encoder}")
        from jobs.views.benchmark import ProgressBars, study_view
        from jobs.views.table import result_console
        from kcm.config import parse_config
        from kcm.study import Settings, StudyConfig, run_study

        columns = {
            "text_column": text_column,
            "label_column": label_column,
            "task_column": task_column,
            "group_column": group_column,
            "split_column": split_column,
        }
        config = parse_config(
            StudyConfig,
            {
                "tasks": {
                    "source": _source(data, subset, columns),
                    "scenario": scenario,
                    "num_tasks": num_tasks,
                    "mapping": mapping,
                    "long_tail": None if long_tail is None else {"imbalance_factor": long_tail},
                    "fractions": FRACTIONS,
                },
                "feature_columns": feature_column or (),
                "encoder": {"model": encoder},
                "networks": network or ("kan", "mlp"),
                "learners": learner or ("replay",),
                "memory_per_class": memory_per_class or (10,),
                "num_seeds": num_seeds,
                "match": match,
            },
        )
        with ProgressBars() as bars:
            result |= run_study(config, Settings.load(settings), assets_path, storage, bars)
        result_console().print(study_view(result))


@app.command()
def retrieval(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG", help="A run's YAML file over pairs: see docs/vision_language.md."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a value of CONFIG; repeatable."),
    ] = None,
    top_k: Annotated[
        list[int] | None, typer.Option(metavar="K", help="Items that the large model ranks anew; repeatable.")
    ] = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Search captions by pictures and pictures by captions: R@1, R@5 and R@10 of small, large and cascade."""
    with reported(json, debug) as result:
        announce(f"reading {config}, and starting Ray")
        from jobs.views.retrieval import retrieval_view
        from jobs.views.table import result_console
        from kcm.config import load_config, parse_config
        from kcm.retrieval.search import RetrievalConfig
        from pipelines.config import RunConfig
        from pipelines.run import retrieval as measure

        settings = parse_config(RetrievalConfig, {"top_k": top_k} if top_k else {})
        result |= measure(load_config(RunConfig, config, overrides or ()), settings)
        result_console().print(retrieval_view(result))


def _source(data: str, subset: str | None, columns: dict[str, str | None]) -> dict[str, Any]:
    """A local path as a file, the packaged reviews by their name, anything else as the id of a hub data set."""
    if data == "reviews" and not Path(data).exists():
        return {"kind": "reviews"}
    if Path(data).expanduser().exists() or Path(data).suffix or data.startswith(("/", "./", "../", "~")):
        return {"kind": "files", "path": data, **columns}
    return {"kind": "hub", "id": data, "subset": subset, **columns}
