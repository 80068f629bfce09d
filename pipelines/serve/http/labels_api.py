# No `from __future__ import annotations` here: FastAPI must see the models that are made within a function.
"""The label inbox over HTTP: the open items, and what a person says of them."""

from typing import Annotated, Any, Self

from fastapi import FastAPI, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from pipelines.serve.cascade.labelling import MAX_SHOWN
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.config import LimitsConfig
from pipelines.serve.http.requests import MAX_NAME
from pipelines.serve.schemas import LabelsCounted, LabelsResponse, Problem

ITEM_PATTERN = r"^[\x21-\x7e]{1,128}/[0-9]{1,6}$"
_DEFAULT_SHOWN = 5


class GivenLabel(BaseModel):
    """What a person says of an item: its label, or that it is skipped, which counts as lost."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(pattern=ITEM_PATTERN, description="Of the item, as it was given out.")]
    label: Annotated[str | None, Field(min_length=1, max_length=MAX_NAME)] = None
    skip: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.skip == (self.label is not None):
            raise ValueError("Give a label, or skip the item")
        return self


def add_labels(api: FastAPI, service: CascadeService, limits: LimitsConfig) -> None:
    """Add the paths of the inbox."""
    LabelsRequest = labels_request(limits)
    problems: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (403, 404, 409)}

    @api.get("/v1/labels", responses=problems)
    async def labels(
        request: Request, limit: Annotated[int, Query(ge=1, le=MAX_SHOWN)] = _DEFAULT_SHOWN
    ) -> LabelsResponse:
        """The items that a person's label is asked of, the first ones in their order; none where none are asked for."""
        return await service.labelling.inbox(request.state.origin.caller, limit)

    @api.post("/v1/labels", responses=problems)
    async def label(body: LabelsRequest, request: Request) -> LabelsCounted:  # type: ignore[valid-type]
        """Say what items of the inbox are. Answered once it is stored for good; sent again, it changes nothing."""
        answers = {each.id: each.label for each in body.labels}  # type: ignore[attr-defined]
        again: bool = body.again  # type: ignore[attr-defined]
        return await service.labelling.answer(request.state.origin.caller, answers, again=again)


def labels_request(limits: LimitsConfig) -> type[BaseModel]:
    """The body of `POST /v1/labels`."""
    labels = Annotated[list[GivenLabel], Field(min_length=1, max_length=limits.max_items), AfterValidator(_distinct)]
    again = Annotated[bool, Field(description="Replaces answers that were given before; else they are refused.")]
    return create_model(
        "LabelsRequest", __config__=ConfigDict(extra="forbid"), labels=(labels, ...), again=(again, False)
    )


def _distinct(items: list[GivenLabel]) -> list[GivenLabel]:
    if len({item.id for item in items}) < len(items):
        raise ValueError("Each item can have one label")
    return items
