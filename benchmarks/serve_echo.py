# No `from __future__ import annotations` here: FastAPI must see the types of an endpoint that travels to a replica.
"""The least that a served batch can be: FastAPI and `serve.batch` in one deployment, and nothing in between."""

import time
from typing import Any

from fastapi import FastAPI, Request
from ray import serve

api = FastAPI()


@serve.deployment(name="echo")
@serve.ingress(api)
class Echo:
    """Answers with what it was sent."""

    @api.post("/v1/predict")
    async def predict(self, request: Request) -> dict[str, Any]:
        """The body that came, after it has been in a batch."""
        return await self.batch(await request.json())  # type: ignore[no-any-return]

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.0)
    async def batch(self, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The bodies themselves."""
        return bodies

    @api.get("/readyz")
    async def readyz(self) -> dict[str, float]:
        """At once."""
        return {"ready_at": time.time()}
