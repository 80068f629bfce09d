"""The page at `/` in a real browser: what a person sees, hears and can do, and that nothing else gets in.

Pictures of it are left in `build/page`. It is run where KCM_TEST_BROWSER=1; see `collect_ignore` in conftest.py.
"""

import base64
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from kcm.bundle.bundle import Bundle
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.encoders import Encoder
from kcm.encoders.pixels import PixelsConfig, PixelsEncoder
from kcm.large.adapters.classifier import ClassifierConfig
from kcm.large.adapters.openai import OpenAiConfig
from pipelines.serve.http.keys import Keys
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.tables import FEEDBACK
from tests.integration.page.served_page import (
    CERTIFICATE,
    HOSTILE,
    METRICS,
    page_of,
    signals_gate,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CHROMIUM = Path("/usr/bin/chromium")
# It runs as whoever runs the tests, and asks nobody for anything.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PICTURES = Path(__file__).parents[3] / "build" / "page"
ACCESSIBLE = (Path(__file__).parent / "accessible.js").read_text(encoding="utf-8")
MATRIX = ("85.0", "60.0", "83.0", "80.0")
LABELS = ("negative", HOSTILE)


@pytest.fixture(scope="module")
def encoder(quick_bundle: Callable[..., Path], assets_dir: Path) -> Encoder:
    return Bundle.read(quick_bundle()).encoder.build(assets_dir)


@pytest.fixture(scope="module")
def bundle(quick_bundle: Callable[..., Path]) -> Path:
    """Half of the sentences are kept; the others are put to a language model."""
    return quick_bundle(
        label_names=LABELS,
        large=OpenAiConfig(model="some-model", api_key_env=None),
        metrics=METRICS,
        certificates={None: CERTIFICATE},
    )


@pytest.fixture(scope="module")
def feedback_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('feedback')}/feedback.db"


@pytest.fixture(scope="module")
def url(bundle: Path, encoder: Encoder, feedback_url: str) -> Iterator[str]:
    with page_of(bundle, encoder, feedback_url=feedback_url) as address:
        yield address


@pytest.fixture(scope="module")
def texts(url: str, sentences: list[str]) -> dict[str, str]:
    """A sentence for each route."""
    chosen = [text for text in sentences if 6 <= len(text.split()) <= 20][:60]
    body = {"inputs": [{"text": text} for text in chosen]}
    answers = httpx.post(f"{url}/v1/predict", json=body, timeout=60).json()["answers"]
    return {answer["route"]: text for answer, text in zip(answers, chosen, strict=True)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM.exists(), "KCM_TEST_BROWSER=1, but there is no browser: apt-get install chromium"
    expect.set_options(timeout=60_000)  # machines that run tests are busy
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page, and what happened behind it; `expected` are parts of console messages that a test provokes."""

    page: Page
    asked_for: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    def ask(self, text: str) -> None:
        """Type a text, ask, and wait until it is explained."""
        self.page.get_by_label("Text to classify").fill(text)
        self.page.get_by_role("button", name="Ask").click()
        expect(self.page.locator("#answer")).not_to_have_attribute("aria-busy", "true", timeout=60_000)


@pytest.fixture
def visit(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[..., Visit]]:
    """Opens the page. Afterwards: no request has left the origin, and the console has stayed silent."""
    visits: list[tuple[str, Visit]] = []

    def open_page(address: str, scheme: Literal["light", "dark"] = "light", width: int = 1200, path: str = "") -> Visit:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        found = Visit(context.new_page())
        found.page.on("request", lambda sent: found.asked_for.append(sent.url))
        found.page.on("console", lambda message: found.said.append(message.text))
        found.page.on("pageerror", lambda error: found.said.append(str(error)))
        found.page.goto(f"{address}/{path}")
        visits.append((address, found))
        return found

    yield open_page
    for address, found in visits:
        own = (f"{address}/", f"blob:{address}/")
        assert [sent for sent in found.asked_for if not sent.startswith(own)] == []
        assert [words for words in found.said if not any(part in words for part in found.expected)] == []
        assert found.page.evaluate("window.broken") is None
        found.page.context.close()


def test_a_kept_input_is_answered_with_gauge_route_and_reasons(visit: Any, url: str, texts: dict[str, str]) -> None:
    """Promise: a person sees the label, who gave it, how sure the judge is against the threshold, and why."""
    page = (opened := visit(url)).page
    opened.ask(texts["small"])
    answer = page.get_by_role("region", name="Answer", exact=True)
    expect(answer).to_contain_text("answered by the small model")
    expect(answer.get_by_role("status")).to_contain_text("The judge is")
    meter = answer.get_by_role("meter")
    sure, needed = re.findall(r"([\d.]+)%", meter.get_attribute("aria-valuetext") or "")
    assert float(sure) > float(needed)
    assert float(meter.get_attribute("aria-valuenow") or 0) == float(sure)
    expect(page.get_by_role("heading", name="What the large model would have seen")).to_be_visible()
    why = page.get_by_role("region", name="Why")
    expect(why.get_by_role("img")).to_have_count(6)
    expect(why.get_by_role("img").first).to_have_accessible_name(re.compile(r"Edge function of feature \d+: at"))
    expect(why.locator(".words span")).to_have_count(len(texts["small"].split()))


def test_escalated_input_shows_its_prompt_and_savings(visit: Any, url: str, texts: dict[str, str]) -> None:
    """Promise: the prompt on the page is word for word what the large model was sent, the text within its marks."""
    page = (opened := visit(url)).page
    opened.ask(texts["large"])
    expect(page.get_by_role("region", name="Answer", exact=True)).to_contain_text("answered by the large model")
    saw = page.get_by_role("region", name="What the large model saw")
    system, user = saw.locator("pre").all_text_contents()
    assert f"Answer with one of these labels and nothing else: negative, {HOSTILE}." in system
    assert user == f"<<<\n{texts['large']}\n>>>"
    tally = page.get_by_role("region", name="Since the service started")
    expect(tally).to_contain_text(re.compile(r"Calls saved\d+\.\d%"))
    expect(tally).to_contain_text(re.compile(r"Cost saved−?\d+\.\d%"))


def test_an_answer_in_place_of_a_failed_one_is_called_that(visit: Any, url: str, texts: dict[str, str]) -> None:
    """Promise: nobody takes the small model's answer during an outage for the large model's."""
    opened = visit(url)
    text = texts["large"]
    for end in ("", ".", "!", "…", " ,", " ;"):  # one that is still escalated with the word that makes trouble
        opened.ask(f"{text} trouble{end}")
        if "large one failed" in opened.page.locator("#verdict").inner_text():
            return
    pytest.fail("no variant was escalated")


def test_a_wrong_answer_can_be_put_right(visit: Any, url: str, feedback_url: str, texts: dict[str, str]) -> None:
    """Promise: a true label is stored under the request it belongs to, and the text only if a person wants that."""
    page = (opened := visit(url)).page
    for along in (False, True):
        opened.ask(texts["small"])
        page.get_by_text("Not right? Say what is").click()
        page.get_by_label("True label").select_option("negative")
        page.get_by_label("with the text").set_checked(along)
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_text("Stored for good.")).to_be_visible()
    stored = {row["text"]: row for row in DecisionLog(feedback_url, 30.0).read(FEEDBACK)}
    assert stored.keys() == {None, texts["small"]}
    assert {row["label"] for row in stored.values()} == {"negative"}
    assert stored[texts["small"]]["request_id"] in page.locator("#verdict").inner_text()


def test_version_shows_promise_frontier_and_matrix(visit: Any, url: str) -> None:
    """Promise: what the served version was measured and certified to do stands on the page."""
    version = visit(url).page.get_by_role("region", name="The version that answers")
    expect(version).to_contain_text("With at least 90% probability, at most 2 points of accuracy are lost")
    expect(version.get_by_role("group", name=re.compile("Accuracy against calls"))).to_be_visible()
    matrix = version.get_by_role("group", name=re.compile("Accuracy matrix"))
    expect(matrix.locator(".role-mark text[aria-label]")).to_have_text([re.compile(f"{each}$") for each in MATRIX])


def test_it_can_be_used_by_keyboard_alone(visit: Any, url: str, texts: dict[str, str]) -> None:
    """Promise: without a pointer one can ask, hear the answer, and look at the other network's edges."""
    page = visit(url).page
    expect(page.locator("#report > *").first).to_be_visible()
    focused = lambda: page.evaluate("document.activeElement.textContent || document.activeElement.id")  # noqa: E731
    page.keyboard.press("Tab")
    assert focused() == "Skip to the input"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert focused() == "text"
    page.keyboard.type(texts["small"])
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert focused() == "Ask"
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("answered by the small model")
    expect(page.get_by_role("region", name="Why")).to_be_visible()
    page.keyboard.press("Tab")
    assert focused() == "Not right? Say what is"
    page.keyboard.press("Tab")
    expect(page.get_by_role("radio", name="Judge")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Small model")).to_be_checked()
    expect(page.locator(".panel").nth(0)).to_be_hidden()
    expect(page.locator(".panel").nth(1)).to_be_visible()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 360), ("dark", 360)])
def test_it_is_accessible_in_light_and_dark_and_fits_a_phone(
    visit: Any, url: str, texts: dict[str, str], scheme: str, width: int
) -> None:
    """Promise: names, landmarks and headings, contrast of AA, and nothing that has to be scrolled sideways."""
    opened = visit(url, scheme, width)
    expect(opened.page.locator("#report figure").first).to_be_visible()
    assert opened.page.evaluate(ACCESSIBLE) == []
    opened.ask(texts["large"])
    assert opened.page.evaluate(ACCESSIBLE) == []
    light = opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(250, 250, 248)"
    assert light == (scheme == "light")
    PICTURES.mkdir(parents=True, exist_ok=True)
    opened.page.screenshot(path=PICTURES / f"{scheme}-{width}.png", full_page=True)


@pytest.fixture(scope="module")
def pictures(quick_bundle: Callable[..., Path]) -> Iterator[str]:
    """The page of a model that reads pictures of 6 x 6 pixels and keeps all of them."""
    config = PixelsConfig(side=6)
    folder = quick_bundle(
        collaborator=Collaborator(108, 2, NetworkConfig(hidden=()), "kan", seed=0).requires_grad_(False),
        encoder=config,
        large=ClassifierConfig(encoder=config),
        policy=Policy(decision=KEEP_ALL),
    )
    with page_of(folder, PixelsEncoder(config)) as address:
        yield address


@pytest.mark.parametrize("way", ["chosen", "dropped", "pasted"])
def test_a_picture_is_shown_answered_and_shaded(visit: Any, pictures: str, way: str) -> None:
    """Promise: a picture that is chosen, dropped or pasted is shown, answered, and its pixels' effects lie on it."""
    page = visit(pictures).page
    picture_input = page.get_by_label("Picture to classify")
    expect(picture_input).to_be_visible()
    expect(page.get_by_label("Text to classify")).to_be_hidden()
    if way == "chosen":
        picture_input.set_input_files({"name": "stripes.png", "mimeType": "image/png", "buffer": stripes()})
    else:
        page.evaluate(HAND_OVER, [way, base64.b64encode(stripes()).decode()])
    expect(page.get_by_alt_text("The picture to classify, stripes.png")).to_be_visible()
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("status").first).to_contain_text("answered by the small model")
    heat = page.locator("#heat canvas")
    expect(heat).to_have_accessible_name(re.compile(r"Most for it: (top|middle|bottom) (left|centre|right) \(\+"))
    painted = heat.evaluate("c => [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, 6, 6).data]")
    assert painted[:2] == [6, 6]
    assert len({tuple(painted[2 + 4 * i : 5 + 4 * i]) for i in range(36)}) >= 2  # for and against
    expect(
        page.get_by_role("img", name=re.compile(r"Edge function of pixel \d, \d, (red|green|blue)")).first
    ).to_be_visible()
    assert page.evaluate(ACCESSIBLE) == []
    if way == "chosen":
        page.screenshot(path=PICTURES / "picture.png", full_page=True)
    page.get_by_role("button", name="Remove the picture").click()
    expect(picture_input).to_be_focused()


def test_a_file_that_is_no_picture_is_refused_in_words(visit: Any, pictures: str) -> None:
    """Promise: neither a file of another kind nor one that only claims to be a picture breaks the page."""
    opened = visit(pictures)
    opened.expected = ("422",)
    page, picture_input = opened.page, opened.page.get_by_label("Picture to classify")
    picture_input.set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"a text"})
    expect(page.get_by_role("alert")).to_have_text("notes.txt is not a picture.")
    picture_input.set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": b"no picture at all"})
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert")).to_contain_text("not an image of a known kind")


def stripes() -> bytes:
    """A PNG."""
    pixels = np.zeros((12, 12, 3), np.uint8)
    pixels[::3], pixels[:, 8:] = (250, 120, 20), (20, 90, 200)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


HAND_OVER = """
([way, encoded]) => {
  const bytes = Uint8Array.from(atob(encoded), (each) => each.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "stripes.png", { type: "image/png" }));
  const field = document.getElementById("picture-field");
  const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  if (way === "dropped") field.dispatchEvent(drop);
  else document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
}
"""


def test_hostile_texts_and_labels_stay_text(visit: Any, url: str) -> None:
    """Promise: whatever a text, a label or a measured name says, it is shown and never run."""
    opened = visit(url)
    opened.ask(f"{HOSTILE} {HOSTILE} javascript:window.broken=1 \u202e\u0000 {{7*7}}")
    page = opened.page
    expect(page.locator(".words")).to_contain_text('<img src=x onerror="window.broken=1">')
    expect(page.locator("#shown pre").first).to_contain_text(HOSTILE)
    expect(page.locator("#report")).to_contain_text("<img src=x onerror=")  # a chart shortens the rest
    assert page.locator("main img:not(#preview), main script, main iframe, main [onerror]").count() == 0


def test_a_key_opens_it_and_is_kept_nowhere(visit: Any, bundle: Path, encoder: Encoder, tmp_path: Path) -> None:
    """Promise: the page itself loads without a key, tells nothing before it has one, and forgets it when it closes."""
    file = tmp_path / "keys"
    file.write_text(f"ann {sha256(b'secret-key').hexdigest()}\n")
    with page_of(bundle, encoder, Keys(file)) as address:
        opened = visit(address)
        opened.expected = ("401",)
        page, key = opened.page, opened.page.get_by_label("This service asks for a key")
        expect(key).to_be_focused()
        assert "films/7" not in page.content()
        for shown in ("wrong", "secret-key"):
            key.fill(shown)
            page.keyboard.press("Enter")
        expect(page.get_by_text("Version films/7")).to_be_visible()
        expect(key).to_be_hidden()
        opened.ask("A fine film.")
        expect(page.get_by_role("status")).to_contain_text("The judge is")
        assert page.evaluate("document.cookie + JSON.stringify([localStorage, sessionStorage])") == "[{},{}]"
        assert "secret-key" not in page.content() + "".join(opened.asked_for)
        page.reload()
        expect(key).to_be_visible()


def test_quadratic_units_show_their_lines_and_parabolas(
    visit: Any, quick_bundle: Callable[..., Path], encoder: Encoder
) -> None:
    """Promise: the network that closed forms do best with is read like any other, by both its networks."""
    network = NetworkConfig(hidden=(), basis="quadratic", mixing=512)
    quadratic = Collaborator(384, 2, network, "kan", seed=0).requires_grad_(False)
    with page_of(quick_bundle(collaborator=quadratic), encoder) as address:
        opened = visit(address)
        opened.ask("A fine film, and a long one.")
        edges = opened.page.locator("#edges")
        expect(edges.locator(".edges li")).to_have_count(12)
        expect(edges.get_by_text("the shares are exact").first).to_be_visible()
        names = edges.locator(".edge-title span").all_text_contents()
        assert {name.split()[0] for name in names} == {"feature", "direction"}


@pytest.mark.parametrize(("num_labels", "width"), [(3, 1200), (40, 1200), (40, 360)])
def test_signal_gate_shows_curves_and_rates_of_all_labels(
    visit: Any, quick_bundle: Callable[..., Path], encoder: Encoder, sentences: list[str], num_labels: int, width: int
) -> None:
    """Promise: whoever signs for a router reads all of it: every curve, and both rates of every label."""
    labels = (HOSTILE, *(f"intent {number}" for number in range(1, num_labels)))
    folder = quick_bundle(**signals_gate(labels, encoder, sentences[:200]))
    with page_of(folder, encoder) as address:
        opened = visit(address, width=width)
        opened.ask("A fine film, and a long one.")
        gate = opened.page.locator("#gate")
        expect(gate.get_by_role("img").first).to_have_accessible_name(re.compile("to the gate score"))
        expect(gate).to_contain_text(
            re.compile(r"it is right on [\d.]+% of validate rows, and the large model on [\d.]+%")
        )
        rows = gate.locator("tbody tr")
        if num_labels > 6:
            expect(rows.first).to_be_hidden()
            gate.get_by_text("The rates of all 40 labels").click()
        expect(rows).to_have_count(num_labels)
        expect(rows.first).to_be_visible()
        expect(gate.locator("tr.own")).to_have_count(1)
        expect(gate.locator("tr.own")).to_contain_text("this answer")
        assert opened.page.evaluate(ACCESSIBLE) == []
        PICTURES.mkdir(parents=True, exist_ok=True)
        gate.screenshot(path=PICTURES / f"gate-{num_labels}-{width}.png")
