"""The report of a run in a real browser: a file that opens offline, under its own policy. See test_page.py."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from kcm.report.page import write_report
from tests.integration.page.test_page import ACCESSIBLE, CHROMIUM, FLAGS, PICTURES
from tests.run_result import RESULT, report_inputs

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_opens_offline(browser: Browser, tmp_path: Path, scheme: str, width: int) -> None:
    """Nothing is fetched or refused, contrast and names are accessible, nothing scrolls sideways, the slider moves."""
    file, messages = tmp_path / "report.html", []
    write_report(report_inputs(copy.deepcopy(RESULT)), file)
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True)
    page = context.new_page()
    page.on("console", lambda message: messages.append(message.text))
    page.on("requestfailed", lambda request: messages.append(request.url))
    page.goto(file.as_uri())

    assert page.evaluate(ACCESSIBLE) == []
    control = page.get_by_text("MCM (random ReLU) at its threshold, 95% interval")
    expect(control).to_be_hidden()
    page.locator("details").evaluate_all("sections => sections.forEach(section => (section.open = true))")
    expect(control).to_be_visible()
    assert page.evaluate(ACCESSIBLE) == []
    page.get_by_role("slider").press("ArrowRight")
    expect(page.locator(".slider")).to_contain_text("2.7 lost")
    expect(page.locator(".role-mark title").first).to_contain_text("KCM (quadratic) at its threshold: 91.7%")
    assert messages == []
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"report-{scheme}-{width}.png", full_page=True)
    context.close()
