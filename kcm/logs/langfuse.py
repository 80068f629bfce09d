"""Exports of Langfuse: observations by its interface or from a table (camel case), or from storage (snake case).

Only generations are calls; spans and events repeat their inputs. A trace brings its observations along. Costs are in
dollars. Source: github.com/langfuse/langfuse, fern/apis/server/definition/commons.yml (ObservationsView).
"""

from __future__ import annotations

from kcm.logs.call import (
    ChatMessage,
    LoggedCall,
    Row,
    assistant_text,
    chat,
    count,
    first,
    number,
    seconds,
    section,
    unpacked,
)


def calls(row: Row) -> list[LoggedCall] | None:
    """The calls of a row; None if the row has another format."""
    observations = unpacked(row.get("observations"))
    if isinstance(observations, list) and "id" in row:
        inner = [calls(each) or [] for each in observations if isinstance(each, dict)]
        return [call for some in inner for call in some]
    if not {"traceId", "trace_id"} & row.keys() or not {"input", "output"} & row.keys():
        return None
    if str(first(row, "type") or "GENERATION").upper() != "GENERATION":
        return []
    usage, cost = section(row, "usageDetails", "usage_details", "usage"), section(row, "costDetails", "cost_details")
    failed = str(first(row, "level") or "").upper() == "ERROR"
    question = unpacked(row.get("input"))
    return [
        LoggedCall(
            messages=() if isinstance(question, dict) and question.get("tools") else _messages(question),
            reply=None if failed else assistant_text(row.get("output")),
            model=str(first(row, "model", "providedModelName", "provided_model_name") or ""),
            num_read=count(first(row, "promptTokens", "inputTokens") or first(usage, "input", "promptTokens")),
            num_written=count(
                first(row, "completionTokens", "outputTokens") or first(usage, "output", "completionTokens")
            ),
            cost=number(first(row, "calculatedTotalCost", "totalCost", "total_cost") or first(cost, "total")),
            time=seconds(first(row, "startTime", "start_time")),
            failed=failed,
        )
    ]


def _messages(question: object) -> tuple[ChatMessage, ...]:
    return ({"role": "user", "content": question},) if isinstance(question, str) else chat(question)
