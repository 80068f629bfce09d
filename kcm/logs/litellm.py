"""Spend logs of the LiteLLM proxy, and the payload of its logging callbacks.

The table LiteLLM_SpendLogs has the messages only if `store_prompts_in_spend_logs` is set; newer versions write the
request's body into `proxy_server_request` in place of `messages`. Spend is in dollars.
Source: github.com/BerriAI/litellm, schema.prisma (LiteLLM_SpendLogs), litellm/types/utils.py (StandardLoggingPayload).
"""

from __future__ import annotations

from kcm.logs.call import LoggedCall, Row, assistant_text, chat, first, section, unpacked


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
        LoggedCall.of(
            () if body.get("tools") else messages,
            assistant_text(response) if response else None,
            model=first(row, "model", "model_group"),
            tokens=(row.get("prompt_tokens"), row.get("completion_tokens")),
            cost=first(row, "spend", "response_cost"),
            time=first(row, "startTime", "start_time"),
            failed=failed,
        )
    ]
