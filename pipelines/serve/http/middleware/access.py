"""Who may call, by which name, and how often."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.serve.http.errors import problem
from pipelines.serve.http.keys import Keys
from pipelines.serve.http.site import is_open
from pipelines.serve.rate import RateLimit
from pipelines.serve.schemas import Refusal

_PORT = re.compile(r":\d*$", re.ASCII)  # of an IPv6 address in brackets nothing else ends so

ANYONE = "anyone"  # the caller where no keys are asked for
DOCS = "/docs"  # the interface's own page; its files lie below
PROBES = frozenset({"/healthz", "/readyz"})  # asked by address, by what starts and watches the service
OPEN = PROBES | {DOCS, "/openapi.json"}


class AllowedHosts:
    """ASGI middleware: serves these host names alone, in any case and with any port; `*` stands for any.

    It stops DNS rebinding: another site's page whose name has been pointed at this address reaches the service from a
    browser of this machine, but the browser still sends that name in `Host`.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._any = "*" in hosts
        self._names = frozenset(name.lower() for name in hosts if "*" not in name)
        self._endings = tuple(name[1:].lower() for name in hosts if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or self._any or scope["path"] in PROBES or self._is_allowed(scope):
            await self._app(scope, receive, send)
            return
        detail = "host: this name is not served here; serve.allowed_hosts lists those that are"
        await problem(421, detail)(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"host"]
        if len(given) != 1:
            return False
        host = _PORT.sub("", given[0].decode("latin-1")).lower()
        return host in self._names or (bool(self._endings) and host.endswith(self._endings))


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
            if self._keys:
                scope["state"]["origin"] = replace(scope["state"]["origin"], caller=caller)
            self._require_rate(caller)
        except Refusal as refusal:
            await problem(refusal.status, refusal.detail, refusal.headers)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> str:
        if self._keys is None:
            return ANYONE
        header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, key = header.partition(" ")
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
