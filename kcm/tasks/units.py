"""Units: rows that must stay together because they share their group or, without a group, their content.

The name of a unit is a digest of its group, or else of its content. The functions on many rows return the same names as
the functions on one input, which serving uses. N rows.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from collections.abc import Iterable
from hashlib import sha256

import pyarrow as pa
import pyarrow.compute as pc

from kcm.inputs.content import Content, image_digest
from kcm.inputs.visible import visible

# The key of an ASCII text without these is its lower case.
_NOT_PLAIN = r"[\x00-\x1f\x7f]|^ | $|  |[<\[] |> >"
# Unicode's default-ignorable characters: those that a question to a model keeps, such as joiners, and the others.
_ZERO_WIDTH = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\U000e0000-\U000e0fff]"
)
_TAG_SPACE = re.compile("(?<=[<[]) |(?<=>) (?=>)")  # a question breaks tags up by spaces
_CONTENTS_AT_ONCE = 1024  # rows with pictures or vectors held in memory as Python objects


def content_key(row: Content) -> str:
    """A key that rows of equal content share: from the bytes of picture and vector, and from the text's key.

    A re-encoded picture has another key.
    """
    parts = [f"image\0{image_digest(row.image)}"] if row.image else []
    if row.vector is not None:
        parts.append(f"vector\0{sha256(row.vector.tobytes()).hexdigest()}")
    if row.text or not parts:
        parts.append(f"text\0{text_key(row.text)}")
    return "\0".join(parts)


def text_key(text: str) -> str:
    """The text without differences of case, character width, white space and invisible characters.

    Texts that are one text in a question to a large model (`kcm.large.prompts.sanitized`) have one key.
    """
    plain = unicodedata.normalize("NFKC", _ZERO_WIDTH.sub("", visible(text)))
    return _TAG_SPACE.sub("", " ".join(plain.casefold().split()))


def unit_digest(content: Content, group: str = "") -> bytes:
    """A digest of the unit of one input: of its group, or else of its content."""
    return _digest(f"group\0{group}" if group else content_key(content))


def unit_of(digest: bytes, key: bytes) -> str:
    """The name of a unit in a log, 32 hexadecimal digits: a keyed hash that reveals nothing without the key."""
    return hmac.digest(key, digest, "sha256")[:16].hex()


def text_keys(texts: pa.Array) -> pa.Array:
    """The `text_key` of every text [N]; ASCII texts, which are most, in one pass."""
    keys = pc.ascii_lower(texts)
    is_complex = pc.or_(pc.invert(pc.string_is_ascii(texts)), pc.match_substring_regex(texts, _NOT_PLAIN))
    if not pc.any(is_complex).as_py():
        return keys
    return pc.replace_with_mask(
        keys, is_complex, pa.array(map(text_key, texts.filter(is_complex).to_pylist()), pa.string())
    )


def content_names(rows: pa.Table) -> list[str]:
    """The content of every row [N]: the first 32 hexadecimal digits of its `unit_digest`.

    `rows` has the column text, which holds text keys, and the columns image and vector if these are read.
    """
    if rows.column_names == ["text"]:
        return _names(pc.binary_join_element_wise("text", rows["text"], "\0").to_pylist())
    names: list[str] = []
    for batch in rows.to_batches(max_chunksize=_CONTENTS_AT_ONCE):
        columns = {name: batch[name].to_pylist() for name in batch.schema.names if name != "vector"}
        if "vector" in batch.schema.names:
            vectors = batch["vector"]
            columns["vector"] = list(vectors.flatten().to_numpy().reshape(len(batch), vectors.type.list_size))
        contents = (
            Content(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)
        )
        names += _names(map(content_key, contents))
    return names


def group_names(groups: pa.Array) -> list[str]:
    """The group of every row [N]: the first 32 hexadecimal digits of its `unit_digest`; "" for rows without one."""
    coded = pc.dictionary_encode(groups)
    names = [_names([f"group\0{group}"])[0] if group else "" for group in coded.dictionary.to_pylist()]
    return [names[code] for code in coded.indices.to_pylist()]


def _names(keys: Iterable[str]) -> list[str]:
    return [_digest(key)[:16].hex() for key in keys]


def _digest(key: str) -> bytes:
    return sha256(key.encode(errors="surrogatepass")).digest()
