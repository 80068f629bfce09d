"""Turn a log of LLM calls into a table for `kcm label`: one row per call, with its text and the LLM's answer.

    python examples/log_to_table.py LOG.jsonl > table.csv
    kcm label table.csv --answers answer --pilot-only

LOG has one call a line: request and response of OpenAI's chat completions (each direct or below `body`), a row of
LiteLLM's spend log with stored prompts, or a conversation that ends with the reply. The text is the last message,
without the words at its beginning and end that all calls share. A table for `kcm label` holds the calls of one prompt:
`--system WORDS` keeps the calls with these words in an earlier message. Calls without a text or a reply, such as
failed calls, are skipped and counted. Headers and keys are not read.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from os.path import commonprefix
from typing import Any, NamedTuple

from kcm.errors import KcmError
from kcm.inputs.cell_text import guarded
from kcm.inputs.chunks import read_chunks
from kcm.inputs.location import Location


class Call(NamedTuple):
    """The earlier messages as JSON, the last message, and the reply."""

    system: str
    text: str
    answer: str


def call_of(row: Mapping[str, Any]) -> Call | None:
    """The call in a row of a log; None if it has no text or no reply."""
    try:
        messages = _unpacked(row.get("messages")) or _part(row, "request", "proxy_server_request")["messages"]
        if "response" in row:
            reply = _part(row, "response")["choices"][0]["message"]
        else:
            *messages, reply = messages
        *earlier, last = messages
        text, answer = last["content"].strip(), reply["content"].strip()
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # a field is missing or of another type
        return None
    return Call(json.dumps(earlier, ensure_ascii=False), text, answer) if text and answer else None


def _part(row: Mapping[str, Any], *names: str) -> Any:
    """The first of these objects that the row has, or the object in its `body`."""
    part = next((value for name in names if (value := _unpacked(row.get(name)))), {})
    return _unpacked(part.get("body", part))


def _unpacked(value: object) -> Any:
    """The value that a text of JSON holds: LiteLLM's database exports objects as text."""
    return json.loads(value) if isinstance(value, str) else value


def without_shared(texts: Sequence[str]) -> list[str]:
    """Texts without the prefix and the suffix of whole words that all of them share."""
    if len(set(texts)) < 2:
        return list(texts)
    start = _shared(texts)
    rest = [text[start:] for text in texts]
    end = _shared([text[::-1] for text in rest])
    return [text[: len(text) - end].strip() for text in rest]


def _shared(texts: Iterable[str]) -> int:
    """Characters of the shared prefix, cut back to the end of a word."""
    return len(re.sub(r"\w+\Z", "", commonprefix(list(texts))))  # noqa: RUF071 - of characters


def main() -> None:
    """Write the table to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", metavar="LOG")
    parser.add_argument("--system", metavar="WORDS", default="", help="words in an earlier message of the calls")
    options = parser.parse_args()
    try:
        chunks = read_chunks(Location.of(options.log), lambda column: False)
        calls = [call_of(row) for chunk in chunks for row in chunk.objects or ()]
    except KcmError as error:
        sys.exit(f"error: {error}")
    answered = [call for call in calls if call and options.system in call.system]
    print(f"{len(answered):,} of {len(calls):,} calls; {calls.count(None):,} without text or reply", file=sys.stderr)
    table = csv.writer(sys.stdout)
    table.writerow(["text", "answer"])
    texts = without_shared([call.text for call in answered])
    table.writerows((guarded(text), guarded(call.answer)) for text, call in zip(texts, answered, strict=True))


if __name__ == "__main__":
    main()
