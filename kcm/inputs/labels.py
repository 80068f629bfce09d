"""Special values of a label number."""

from __future__ import annotations

OUT_OF_SCOPE = -1
"""A row whose right answer is none of the labels."""

UNLABELLED = -100
"""A train row that nobody has labelled, as torch's losses write it by default."""
