"""The form in which a client of the OpenAI-compatible door wants its label: plain text, or JSON of its own schema.

What cannot be kept to is refused by name, before anything is answered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pipelines.serve.schemas import Refusal

_SCHEMA = "response_format.json_schema.schema"


class ResponseFormat(BaseModel):
    """`response_format` of a request."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class Form:
    """`field` holds the label where it is to be JSON, None for plain text; `allowed` are the labels of a schema."""

    field: str | None = None
    allowed: tuple[str, ...] | None = None

    @classmethod
    def of(cls, asked: ResponseFormat | None) -> Form:
        """Raises Refusal for a schema that holds more than a label."""
        if asked is None or asked.type == "text":
            return cls()
        if asked.type == "json_object":
            return cls("label")
        schema = (asked.json_schema or {}).get("schema")
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        if not isinstance(properties, Mapping) or len(properties) != 1:
            raise Refusal(422, f"{_SCHEMA}: must be an object with one property, which is to hold the label")
        ((field, described),) = properties.items()
        if not isinstance(described, Mapping) or described.get("type", "string") != "string":
            raise Refusal(422, f"{_SCHEMA}: the property must be a string, or an enum of strings")
        values = described.get("enum")
        if values is None:
            return cls(field)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise Refusal(422, f"{_SCHEMA}: the property must be a string, or an enum of strings")
        return cls(field, tuple(values))

    def message(self, label: str) -> dict[str, str | None]:
        """`content` and `refusal` of the reply: a label that a schema does not allow is refused, never changed."""
        if self.allowed is not None and label not in self.allowed:
            return {"content": None, "refusal": f"the answer is {label!r}, which the schema does not allow"}
        content = label if self.field is None else json.dumps({self.field: label}, ensure_ascii=False)
        return {"content": content, "refusal": None}


def refuse_tools(tools: object, functions: object, tool_choice: object) -> None:
    """Raise Refusal for tools that the reply would have to choose from."""
    named = "tools" if tools else "functions"
    if (tools or functions) and tool_choice != "none":
        raise Refusal(422, f"{named}: the model classifies and calls no functions; leave them out, or tool_choice none")
