"""Who may call, and how often."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.serve.http.errors import Refusal, problem
from pipelines.serve.http.keys import Keys
from pipelines.serve.http.rate import RateLimit
from pipelines.serve.http.site import is_open

ANYONE = "anyone"  # the caller where no keys are asked for
DOCS = "/docs"  # the interface's own page; its files lie below
OPEN = frozenset({"/healthz", "/readyz", DOCS, "/openapi.json"})


class Access:
    """ASGI middleware: asks for `Authorization: Bearer KEY` where there are keys, and limits each caller's rate."""

    def __init__(self, app: ASGIApp, keys: Keys | None = None, rate_limit: RateLimit | None = None) -> None:
        self._app, self._keys, self._rate_limit = app, keys, rate_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or _is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            caller = self._caller(scope)
            scope["state"]["log"]["caller"] = caller
            self._require_rate(caller)
        except Refusal as refusal:
            await problem(refusal.status, refusal.detail, refusal.headers)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> str:
        if self._keys is None:
            return ANYONE
        shown = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, key = shown.partition(" ")
        caller = self._keys.caller(key.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            raise Unauthorized()
        return caller

    def _require_rate(self, caller: str) -> None:
        if self._rate_limit and (wait_s := self._rate_limit.wait_s(caller)):
            raise Refusal(429, "this key has been used too often", wait_s)


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(f"{DOCS}/") or is_open(path)


class Unauthorized(Refusal):
    """No valid key was shown."""

    def __init__(self) -> None:
        super().__init__(401, "authorization: a valid key is needed, as Bearer KEY")

    @property
    def headers(self) -> dict[str, str]:
        """How to authenticate."""
        return {"WWW-Authenticate": "Bearer"}
