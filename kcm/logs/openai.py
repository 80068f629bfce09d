"""Logs of OpenAI's interfaces: a request and its response in one row, as middleware writes them.

Chat completions, with the body of either side direct or below `body`, as in the lines of a batch; the Responses API;
and conversations of fine-tuning files, whose last message is the reply.
Source: platform.openai.com/docs/api-reference (chat, responses, batch), and guides on fine-tuning.
"""

from __future__ import annotations

from kcm.logs.call import ChatMessage, LoggedCall, Row, assistant_text, chat, count, first, plain, section


def calls(row: Row) -> list[LoggedCall] | None:
    """The calls of a row; None if the row has another format."""
    request, response = (_body(section(row, name, f"{name}_body")) for name in ("request", "response"))
    request = request or _body(row) if "response" in row or "choices" in row else request
    if not request and isinstance(row.get("messages"), list) and not response:
        return _fine_tuning(row)
    if not {"messages", "input"} & request.keys():
        return None
    response = response or (row if "choices" in row else {})
    usage = section(response, "usage")
    outer = section(row, "response")
    failed = bool(first(row, "error") or response.get("error")) or (count(outer.get("status_code")) or 200) >= 400
    return [
        LoggedCall.of(
            () if request.get("tools") or (count(request.get("n")) or 1) > 1 else _messages(request),
            _reply(response),
            model=first(response, "model") or first(request, "model"),
            tokens=(
                first(usage, "prompt_tokens", "input_tokens"),
                first(usage, "completion_tokens", "output_tokens"),
            ),
            cost=first(row, "cost"),
            time=first(response, "created", "created_at") or first(row, "timestamp", "time", "created_at"),
            failed=failed or not response,
        )
    ]


def _body(part: Row) -> Row:
    return section(part, "body") or ({} if "body" in part else part)


def _messages(request: Row) -> tuple[ChatMessage, ...]:
    """Of chat completions, or of the Responses API, whose instructions are the system message."""
    if "messages" in request:
        return chat(request["messages"])
    content, instructions = request["input"], request.get("instructions")
    messages = ({"role": "user", "content": content},) if isinstance(content, str) else chat(content)
    system: list[ChatMessage] = [{"role": "system", "content": instructions}] if instructions else []
    return (*system, *messages) if messages else ()


def _reply(response: Row) -> str | None:
    """The text of a chat completion, or of a response, whose items of type message hold it."""
    if "output" in response:
        items = [item for item in response["output"] or [] if isinstance(item, dict) and item.get("type") == "message"]
        return plain(items[-1].get("content")) if items else None
    return assistant_text(response) if response.get("choices") else None


def _fine_tuning(row: Row) -> list[LoggedCall] | None:
    messages = chat(row["messages"])
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        return None
    content = messages[-1]["content"]
    return [LoggedCall(messages[:-1], content if isinstance(content, str) else None)]
