"""Exports of Langfuse: observations by its interface or from a table (camel case), or from storage (snake case).

Only generations are calls; spans and events repeat their inputs. A trace brings its observations along. Costs are in
dollars. Source: github.com/langfuse/langfuse, fern/apis/server/definition/commons.yml (ObservationsView).
"""

from __future__ import annotations

from kcm.logs.call import LoggedCall, Row, assistant_text, chat_or_text, first, section, unpacked


def calls(row: Row) -> list[LoggedCall] | None:
    """The calls of a row; None if the row has another format."""
    observations = unpacked(row.get("observations"))
    if isinstance(observations, list) and "id" in row:
        inner = [calls(observation) or [] for observation in observations if isinstance(observation, dict)]
        return [call for some in inner for call in some]
    if not {"traceId", "trace_id"} & row.keys() or not {"input", "output"} & row.keys():
        return None
    if str(first(row, "type") or "GENERATION").upper() != "GENERATION":
        return []
    usage, cost = section(row, "usageDetails", "usage_details", "usage"), section(row, "costDetails", "cost_details")
    failed = str(first(row, "level") or "").upper() == "ERROR"
    question = unpacked(row.get("input"))
    return [
        LoggedCall.of(
            () if isinstance(question, dict) and question.get("tools") else chat_or_text(question),
            assistant_text(row.get("output")),
            model=first(row, "model", "providedModelName", "provided_model_name"),
            tokens=(
                first(row, "promptTokens", "inputTokens") or first(usage, "input", "promptTokens"),
                first(row, "completionTokens", "outputTokens") or first(usage, "output", "completionTokens"),
            ),
            cost=first(row, "calculatedTotalCost", "totalCost", "total_cost") or first(cost, "total"),
            time=first(row, "startTime", "start_time"),
            failed=failed,
        )
    ]
