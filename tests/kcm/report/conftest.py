"""A run as the pipeline reports it, and readers that take a page as a person or a browser does."""

import base64
import copy
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from kcm.report.page import ReportInputs
from tests.run_result import RESULT, report_inputs


@pytest.fixture
def result() -> dict[str, Any]:
    return copy.deepcopy(RESULT)


@pytest.fixture
def inputs(result: dict[str, Any]) -> ReportInputs:
    return report_inputs(result)


class Reader(HTMLParser):
    """Tags with their attributes, and the text, as a browser would take them from a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data


@pytest.fixture
def read_page() -> type[Reader]:
    return Reader


@pytest.fixture
def assert_safe() -> Callable[[str], None]:
    """Whether a page asks nothing of the network, and runs one script, which its policy names."""

    def check(page: str) -> None:
        tags = Reader(page).tags
        names = [tag for tag, _ in tags]
        assert not {"link", "img", "iframe", "object"} & set(names)
        assert names.count("script") == names.count("style") == 1
        assert all((attributes.get("href") or "#").startswith("#") for _, attributes in tags)
        attributes = {name for _, attributes in tags for name in attributes}
        assert not {"src", "srcset", "action", "data"} & attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert not re.search(r"url\(|@import", page)
        (script,) = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policies = [given["content"] for _, given in tags if given.get("http-equiv") == "Content-Security-Policy"]
        assert policies == [f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"]

    return check


class Lines(Reader):
    """What a person reads, line by line, cells of a row between bars. Drawings are left out: they have own tests."""

    BREAKS = frozenset(
        (
            "caption",
            "dd",
            "div",
            "dt",
            "figcaption",
            "footer",
            "h1",
            "h2",
            "h3",
            "li",
            "nav",
            "p",
            "pre",
            "summary",
            "tr",
        )
    )

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        if "svg" not in self.open:
            self.text += "\n" if tag in self.BREAKS else " | " if tag in ("td", "th") else " " if tag != "b" else ""

    def handle_data(self, data: str) -> None:
        if "svg" not in self.open:
            super().handle_data(data)


@pytest.fixture
def lines() -> Callable[[str], str]:
    def read(markup: str) -> str:
        shown = (" ".join(line.split()) for line in Lines(str(markup)).text.splitlines())
        return "\n".join(line for line in shown if line)

    return read
