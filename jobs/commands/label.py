"""`kcm label`: label a table with as few calls of a large model as the promise allows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.exit import NOTHING_BOUGHT, OutsidePromise
from jobs.options import AssetsPath, is_asked, located, options_of, require_free
from kcm.errors import ConfigError, KcmError
from kcm.labelling.config import DEFAULT_TARGET, LabelConfig
from kcm.labelling.output import check_output

_KINDS = (".csv", ".tsv", ".parquet", ".json", ".jsonl", ".xlsx")


@options_of(LabelConfig, "promise")
def label(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE", help="Any table that kcm reads, local, s3:// or gs://; no labels or ids needed."
        ),
    ],
    promise: dict[str, Any],
    llm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL", help="Model of an OpenAI-compatible server. Twice: a cheaper model, then the oracle."
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="A,B,C|FILE", help="Label names, or a .txt, .yaml or .json file of them.")
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the texts.")] = None,
    answers: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Replay recorded answers; costs nothing. Twice: like --llm."),
    ] = None,
    truth: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="People's labels on some rows, a random sample.")
    ] = None,
    guarantee: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:LABEL=X",
            help="Promise precision:LABEL=.95 or recall:LABEL=.9; repeatable. Without --target only these.",
        ),
    ] = None,
    prompt: Annotated[
        typer.FileText | None,
        typer.Option(metavar="FILE", encoding="utf-8-sig", help="Your own instructions, with {labels} in them."),
    ] = None,
    base_url: Annotated[str | None, typer.Option(metavar="URL", help="Server, up to before /chat/completions.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the server's key.")
    ] = None,
    input_price: Annotated[float | None, typer.Option(metavar="X", help="Dollars per million tokens read.")] = None,
    output_price: Annotated[float | None, typer.Option(metavar="X", help="Dollars per million tokens written.")] = None,
    batch: Annotated[
        bool,
        typer.Option("--batch", help="Use the batch interface: half the price, within a day."),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="On this machine. Default: TABLE.labelled.csv, in this folder if TABLE is in a bucket.",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Encode the texts on this Ray cluster: HOST:6379, or auto for one on this machine."
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float, typer.Option(min=0, help="With --cluster: GPUs of each encoder, possibly a fraction. Not measured.")
    ] = 0.0,
    store: Annotated[
        str | None, typer.Option(metavar="URI", help="Store of paid answers. Default: one for the user.")
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Ledger of looks. Default: one for the user.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the price of everything and stop.")] = False,
    pilot_only: Annotated[bool, typer.Option("--pilot-only", help="Buy the pilot, print the plan and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before going past the pilot.")] = False,
    assets_path: AssetsPath = Path("assets"),
) -> dict[str, Any]:
    """Label every row of TABLE with as few LLM calls as possible.

    A small model answers most rows, the LLM the rest, and a certificate covers all.
    With probability 1 - --delta at least a share --target of the labels is what the LLM would have said. TABLE needs no
    labels. The job buys a pilot, prints its plan, and asks before it goes on. Started again it continues, and pays for
    nothing twice. Exit codes: 3 if the target is not proved, for example because --max-cost was spent; 4 if no answer
    could be bought.
    """
    location = located(table)
    if output is not None and "://" in output:
        raise ConfigError("the output is a file of this machine", where=output, hint="Write it here, then upload it")
    folder = Path(table).parent if location.is_local else Path()
    target = Path(output) if output else folder / f"{Path(location.name).stem}.labelled.csv"
    bundle = target.with_name(f"{target.stem}.bundle")
    check_output(target, Path(table) if location.is_local else None)
    if batch and not llm:
        raise KcmError("--batch has no effect without --llm", where="label", hint="Recorded answers cost nothing")
    require_free(bundle, "--output")
    from kcm.inputs.tables import read_frame  # pandas

    frame = read_frame(table, _KINDS)
    from kcm.large.adapters.openai import openai_config

    server_options = {
        "base_url": base_url,
        "api_key_env": api_key_env,
        "input_price": input_price,
        "output_price": output_price,
    }
    server: dict[str, Any] = {name: value for name, value in server_options.items() if value is not None}
    servers = [openai_config(model, **server, batch=batch) for model in llm or ()]
    if dry_run:  # asks nothing
        servers = [config.model_copy(update={"api_key_env": None}) for config in servers]
    try:
        for config in servers:
            config.key()  # before the slow imports
    except ConfigError as error:
        raise OutsidePromise(f"error: {error}", {"error": str(error), "bought": 0}, NOTHING_BOUGHT) from None
    from jobs.work.label import label_file  # torch and scikit-learn, after the table was read

    return label_file(
        frame,
        location.name,
        target,
        servers=servers,
        screen={
            "dry_run": dry_run,
            "pilot_only": pilot_only,
            "ask": is_asked() and not yes,
            "target": promise.get("target", None if guarantee else DEFAULT_TARGET),
            "batch": batch,
        },
        cluster=cluster,
        gpus=gpus_per_worker,
        options={
            "labels": labels,
            "answers": answers,
            "text": text,
            "truth": truth,
            "guarantees": guarantee or (),
            "prompt": None if prompt is None else prompt.read(),
            "store": store,
            "ledger": ledger,
            "assets": assets_path,
        }
        | promise,
    )
