"""What computes the frozen networks of a cascade, and whether its certificate holds where something else does.

A certificate is about answers and routes. Runtimes and devices round in their own ways, so that a row near the
threshold may take the other route: what was certified with one counts for another once both were compared on all
certify rows, and were the same.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from pydantic import Field

from kcm.config import Config
from kcm.durable import replace_durably

COMPARED = "compared.json"  # in a bundle's folder, outside of its seal: it comes later


class ComputedBy(Config):
    """A runtime and the kind of its device for each side, such as `onnx on cpu`; empty where nothing is computed."""

    encoder: str = Field(description="Of the small side's encoder.")
    large: str = Field(description="Of the large model.")

    def difference(self, other: ComputedBy) -> str:
        """In words, what was certified with this and is served by `other`."""
        sides = (("encoder", self.encoder, other.encoder), ("large model", self.large, other.large))
        return "; ".join(
            f"the {name} was certified in {mine or 'nothing'} and runs in {theirs or 'nothing'}"
            for name, mine, theirs in sides
            if mine != theirs
        )


class Comparison(Config):
    """All certify rows of a bundle in another runtime: how many there are, and how many are answered differently."""

    computed_by: ComputedBy
    num_rows: int = Field(ge=0)
    num_different: int = Field(ge=0, description="Rows with another route, or another answer of the side that counts.")


class _Compared(Config):
    """`compared.json`: for the bundle of this digest."""

    digest: str
    comparisons: tuple[Comparison, ...]


def keep_comparison(folder: Path, digest: str, comparison: Comparison) -> None:
    """Leave a comparison in a bundle's folder, in place of an earlier one of the same runtimes."""
    others = (each for each in _comparisons(folder, digest) if each.computed_by != comparison.computed_by)
    content = _Compared(digest=digest, comparisons=(*others, comparison)).model_dump_json(indent=2)
    draft = folder / f".{uuid.uuid4().hex}"
    draft.write_text(content + "\n", encoding="utf-8")
    replace_durably(draft, folder / COMPARED)


def void_reason(certified: ComputedBy | None, folder: Path, digest: str, serving: ComputedBy) -> str | None:
    """Why the certificate of the bundle in `folder` does not hold where `serving` computes; None where it does.

    `certified` is None for a bundle without a certificate.
    """
    if certified is None or certified == serving:
        return None
    different = certified.difference(serving)
    found = next((each for each in _comparisons(folder, digest) if each.computed_by == serving), None)
    if found is None:
        return f"{different}, and nobody has compared them: `kcm compare CONFIG` does, on all certify rows"
    if not found.num_different:
        return None
    return (
        f"{different}, which answers or routes {found.num_different} of {found.num_rows} certify rows differently:"
        " serve it as it was certified, or certify again"
    )


def _comparisons(folder: Path, digest: str) -> tuple[Comparison, ...]:
    """What is known of the bundle with this digest; nothing where the file is another bundle's, or damaged."""
    try:
        found = _Compared.model_validate(json.loads((folder / COMPARED).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return ()
    return found.comparisons if found.digest == digest else ()
