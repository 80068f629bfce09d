"""`kcm predict`: answer the rows of files with a bundle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs.exit import OutsidePromise
from jobs.options import BundleSource, Overrides, load
from kcm import extras
from kcm.bundle import folder_of
from kcm.errors import KcmError
from kcm.inputs.location import Location
from pipelines.progress import Reporter

if TYPE_CHECKING:
    from pipelines.cluster.config import ClusterConfig
    from pipelines.config import RunConfig


def predict(
    bundle: BundleSource,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Rows in any format that `kcm init` reads: a file, a folder or a pattern, local, s3:// or gs://.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Output with rows and answers: a .csv, .jsonl or .parquet file; a folder if FILE is a folder or "
            "pattern.",
        ),
    ],
    text_column: Annotated[
        str, typer.Option(metavar="NAME", help="Column with the text, if the bundle reads texts.")
    ] = "text",
    image_column: Annotated[
        str, typer.Option(metavar="NAME", help="Column with the picture, paths or bytes, if it reads pictures.")
    ] = "image",
    image_root: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder that must contain all pictures. Default: FILE's folder."),
    ] = None,
    task_column: Annotated[str | None, typer.Option(metavar="NAME", help="Column with the task, if known.")] = None,
    format: Annotated[
        Literal["csv", "jsonl", "parquet"] | None,
        typer.Option(
            metavar="csv|jsonl|parquet", help="Format of the files in an output folder. Default: the input's."
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace output files that another program wrote; without it they are refused."
        ),
    ] = False,
    on_large_failure: Annotated[
        Literal["answer_small", "error"] | None,
        typer.Option(
            metavar="answer_small|error",
            help="Answer to a row on which the large model failed: the small model's answer, outside the promise, "
            "or none. Default: as in `serve.large.on_large_failure` or the bundle.",
        ),
    ] = None,
    degraded_ok: Annotated[
        bool, typer.Option("--degraded-ok", help="Exit with 0, not 3, if rows are outside the promise.")
    ] = False,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Folder or database of paid answers. Default: of CONFIG's run, KCM_STORE, or the user's own.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="CONFIG", help="Use cluster, assets and servers from a run's YAML file.")
    ] = None,
    overrides: Overrides = None,
) -> dict[str, Any]:
    """Answer every row of files of any size; a rerun resumes.

    The answers are those of the served cascade. This process answers the rows, or the Ray cluster at `cluster.address`
    of CONFIG or at RAY_ADDRESS.
    """
    if overrides and config is None:
        raise KcmError("--set needs --config")
    of_registry = config is not None and bundle.startswith("models:/")
    folder = None if of_registry else folder_of(bundle)
    suffix = format and f".{format}"
    if Location.of(file).is_local and Location.of(output).is_local:
        from pipelines.batch.outputs import predicted_files

        predicted_files(file, output, suffix)  # reports faulty paths before torch is imported
    from jobs.settings import ServiceSettings
    from kcm.large.response_cache import ResponseStore
    from pipelines.batch.predict import predict as predict_files
    from pipelines.paid_answers import paid_answers

    run_config = load(config, overrides) if config else None
    settings = ServiceSettings.of(run_config)
    run_store = paid_answers(run_config) if run_config else None
    folder, reporter = folder or _registered(bundle, run_config), Reporter()
    result = predict_files(
        folder,
        file,
        output,
        text_column,
        image_column=image_column,
        image_root=image_root,
        task_column=task_column,
        cluster=settings.cluster,
        assets_dir=settings.assets_path,
        reporter=reporter,
        upstreams=settings.serve.large.upstreams,
        suffix=suffix,
        overwrite=overwrite,
        responses=ResponseStore.at(store) if store else run_store,
        on_large_failure=on_large_failure or settings.serve.large.on_large_failure,
        on_cluster=_on_cluster(settings.cluster),
    )
    typer.echo(output)
    if result["outside_promise"] and not degraded_ok:
        share = result["outside_promise"]
        raise OutsidePromise(
            f"{share:.1%} of the rows are outside the promise; use --degraded-ok to exit with 0", result
        )
    return result


def _registered(model: str, config: RunConfig | None) -> Path:
    """The folder of a run's champion, or of a version in its registry."""
    champion = extras.load("jobs.models:champion_bundle", model)(config, model) if config else None
    served_model: Callable[..., Any] = extras.load("jobs.models:served_model", model)
    return champion or served_model(config, model).bundle


def _on_cluster(cluster: ClusterConfig) -> Callable[..., Any] | None:
    """The mapper of rows on a cluster; None without an address: this process answers them."""
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    return extras.load("pipelines.batch.on_cluster:map_connected", f"the cluster at {address}") if address else None
