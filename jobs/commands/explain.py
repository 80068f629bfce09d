"""`kcm explain`: pictures of a bundle's networks, and the reasons for single decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import AssetsPath, BundleSource
from kcm.bundle import folder_of


def explain(
    bundle: BundleSource,
    texts: Annotated[
        list[str] | None, typer.Option("--input", metavar="TEXT", help="Explain the decision on this text; repeatable.")
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="FILE", help="Explain the decision on this picture; repeatable."),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the pictures.")] = Path("explanation"),
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Edges per layer, and contributions per input.")] = 10,
    assets_path: AssetsPath = Path("assets"),
) -> dict[str, Any]:
    """Draw the networks of a bundle, and explain single decisions."""
    folder = folder_of(bundle)
    from jobs.work.explain import explain_bundle  # torch

    return explain_bundle(folder, texts or [], images or [], output, top, assets_path)
