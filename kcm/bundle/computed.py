"""What computes the frozen networks of a cascade, and whether its certificate holds where something else does.

A certificate is about answers and routes. Runtimes and devices round in their own ways, so that a row near the
threshold may take the other route: a certificate counts for the runtimes and devices that computed its certify rows.
"""

from __future__ import annotations

from pydantic import Field

from kcm.config import Config


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


def void_reason(certified: ComputedBy | None, serving: ComputedBy) -> str | None:
    """Why a certificate does not hold where `serving` computes; None where it does.

    `certified` is None for a bundle without a certificate.
    """
    if certified is None or certified == serving:
        return None
    return (
        f"{certified.difference(serving)}: serve it as it was certified, or certify it there by `kcm run` with that"
        " runtime and a storage_path of its own"
    )
