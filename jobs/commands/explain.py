"""`kcm explain`: pictures of a bundle's networks, and the reasons of single decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import AssetsPath, BundleSource
from kcm.api.source import folder_of


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
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Edges per layer, and contributions per input.")] = 10,
    assets_path: AssetsPath = Path("assets"),
) -> dict[str, Any]:
    """Draw what a bundle's networks have learned, and say what a decision was made of."""
    folder = folder_of(bundle)
    from jobs.explainer import explain_bundle  # torch

    return explain_bundle(folder, texts or [], images or [], output, top, assets_path)
