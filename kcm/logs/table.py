"""Any table with a column of inputs and a column of the model's answers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from kcm.logs.call import LoggedCall, Row, assistant_text, chat_or_text, first

INPUTS = ("input", "prompt", "text", "question", "query", "messages", "message", "request", "sentence", "utterance")
ANSWERS = ("output", "answer", "completion", "response", "reply", "llm_answer", "prediction", "label")
_MODELS, _COSTS = ("model", "model_name"), ("cost", "spend", "price", "total_cost")
_READ, _WRITTEN = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")
_TIMES = ("time", "timestamp", "created_at", "created", "start_time", "startTime", "date", "datetime")


@dataclass(frozen=True)
class Columns:
    """The columns of inputs and answers."""

    input: str
    answer: str

    @classmethod
    def of(cls, names: Collection[str], input: str | None = None, answer: str | None = None) -> Columns | None:
        """The named columns, or the columns with usual names; None if one is missing."""
        by_name = {name.lower(): name for name in names}
        texts = [input] if input else [by_name[name] for name in INPUTS if name in by_name]
        replies = [answer] if answer else [by_name[name] for name in ANSWERS if name in by_name]
        text = next((name for name in texts if name in names), None)
        reply = next((name for name in replies if name in names and name != text), None)
        return None if text is None or reply is None else cls(text, reply)

    def calls(self, row: Row) -> list[LoggedCall] | None:
        """The call of a row; None if the row lacks a column. A row without an answer has failed."""
        if self.input not in row or self.answer not in row:
            return None
        reply = (assistant_text(row[self.answer]) or "").strip() or None
        return [
            LoggedCall.of(
                chat_or_text(row[self.input]),
                reply,
                model=first(row, *_MODELS),
                tokens=(first(row, *_READ), first(row, *_WRITTEN)),
                cost=first(row, *_COSTS),
                time=first(row, *_TIMES),
                failed=reply is None,
            )
        ]
