"""The page at `/`: plain files that need no network, and the headers that keep them to themselves."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse

from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.http.middleware import INDEX, PREFIX
from pipelines.serve.http.refusals import Refusal

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a page and its interface have the same version
}


def add_pages(api: FastAPI, service: CascadeService) -> None:
    """Add the page, and the fragment that they show of the model."""
    pages = _pages()

    @api.get(INDEX, include_in_schema=False)
    async def index() -> Response:
        return _response(pages, "index.html")

    @api.get(PREFIX + "{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        return _response(pages, name)

    @api.get("/v1/model/report", response_class=HTMLResponse)
    def report() -> HTMLResponse:  # in a thread: figures are drawn in it
        """The version in use in words and figures, as a fragment of HTML: certificate, frontier, accuracy matrix."""
        return HTMLResponse(service.cards.report(), headers=dict(HEADERS))


def _pages() -> dict[str, bytes]:
    """The files by name, whatever their folder: a browser finds them all below `PREFIX`, and imports `./NAME`.

    The page uses the style of the report.
    """
    folders = files("pipelines.serve").joinpath("page").iterdir()
    files_by_name = {file.name: file.read_bytes() for folder in folders for file in folder.iterdir()}
    return files_by_name | {"report.css": files("kcm.report").joinpath("style.css").read_bytes()}


def _response(pages: Mapping[str, bytes], name: str) -> Response:
    if name not in pages:
        raise Refusal(404, "there is no such file")
    return Response(pages[name], headers=dict(HEADERS), media_type=_TYPES[name.rpartition(".")[2]])
