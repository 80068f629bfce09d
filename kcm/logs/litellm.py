"""Spend logs of the LiteLLM proxy, and the payload of its logging callbacks.

The table LiteLLM_SpendLogs has the messages only if `store_prompts_in_spend_logs` is set; newer versions write the
request's body into `proxy_server_request` in place of `messages`. Spend is in dollars.
Source: github.com/BerriAI/litellm, schema.prisma (LiteLLM_SpendLogs), litellm/types/utils.py (StandardLoggingPayload).
"""

from __future__ import annotations

from kcm.logs.call import LoggedCall, Row, assistant_text, chat, count, first, number, seconds, section, unpacked


def calls(row: Row) -> list[LoggedCall] | None:
    """The calls of a row; None if the row has another format."""
    if "call_type" not in row or not {"spend", "response_cost"} & row.keys():
        return None
    if "completion" not in str(row["call_type"]):  # embeddings and images write no text
        return []
    body = section(row, "proxy_server_request")
    body = section(body, "body") or body
    failed = str(first(row, "status") or "success").lower() in ("failure", "failed", "error")
    response = unpacked(row.get("response"))
    messages = chat(row.get("messages")) or chat(body.get("messages"))
    return [
        LoggedCall(
            messages=() if body.get("tools") else messages,
            reply=None if failed or not response else assistant_text(response),
            model=str(first(row, "model", "model_group") or ""),
            num_read=count(row.get("prompt_tokens")),
            num_written=count(row.get("completion_tokens")),
            cost=number(first(row, "spend", "response_cost")),
            time=seconds(first(row, "startTime", "start_time")),
            failed=failed,
        )
    ]
