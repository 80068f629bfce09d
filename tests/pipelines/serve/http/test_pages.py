"""The page at `/` as it is served: whole, closed to strangers' scripts, and in need of nothing else."""

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

PAGE = Path(str(files("pipelines.serve").joinpath("page")))
FILES = sorted(file for file in PAGE.rglob("*") if file.is_file())
SCRIPTS = {file.name: file.read_text() for file in FILES if file.suffix == ".js"}


def test_the_page_and_all_that_it_refers_to_are_there(client: TestClient) -> None:
    markup = client.get("/").text
    found = set(re.findall(r'(?:href|src)="(page/[^"]+)"', markup))
    assert {"page/page.css", "page/report.css", "page/main.js", "page/icon.svg"} <= found
    imported = {name for content in SCRIPTS.values() for name in re.findall(r'from "\./([^"]+)"', content)}
    for path in found | {f"page/{name}" for name in imported}:
        response = client.get(f"/{path}")
        assert response.status_code == 200, path
        assert response.headers["content-type"].split(";")[0] in ("text/css", "text/javascript", "image/svg+xml")


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/v1/model/report"])
def test_nothing_from_elsewhere_may_run_load_or_frame_it(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


def test_page_has_no_inline_script_or_foreign_address() -> None:
    """Promise: it holds no script or style of its own and no address of another host."""
    assert FILES
    for file in FILES:
        content = file.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert not re.search(r"https?://|//[a-z0-9-]+\.[a-z]", content), file.name
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", content), file.name
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", content), file.name


@pytest.mark.parametrize("path", ["/page/", "/page/nothing.js", "/page/../api.py", "/page/%2e%2e%2fapi.py"])
def test_there_is_no_way_to_other_files(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_the_model_s_report_is_a_fragment_of_html(client_of: Callable[..., TestClient]) -> None:
    response = client_of().get("/v1/model/report")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.text == "<p>what &lt;it&gt; promises</p>"
