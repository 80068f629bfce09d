"""What the pages and the examples say is what happens, and the site shows all of it."""

import csv
import doctest
import json
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from markdown_it import MarkdownIt

import kcm
from benchmarks.scale import memory_table
from kcm.certification.certificate import CertificateConfig
from kcm.certification.sample_size import outlook
from pipelines.registry.pyfunc import register_model
from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.tracking import Tracking, set_champion
from tests.kcm.bundle.test_runtime import loadable
from tests.newcomer import intents
from tests.notebooks import EXAMPLES, executed

__all__ = ["loadable"]  # a fixture

ROOT = Path(__file__).parents[1]


@pytest.fixture
def champion(loadable: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[type-arg]
    """A registry that MLflow points to, whose champion of `reviews` is a tiny bundle."""
    folder = loadable[0].write(tmp_path / "bundle")
    tracking = Tracking.open(TrackingConfig(), tmp_path, name="reviews", key="key")
    set_champion(tracking.uri, "reviews", register_model(tracking, "reviews", folder, "fingerprint"))
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)


@pytest.mark.usefixtures("champion")
def test_the_page_on_python_is_true() -> None:
    failed, tried = doctest.testfile(str(ROOT / "docs" / "python.md"), module_relative=False)
    assert tried >= 18
    assert failed == 0


def test_the_page_on_routers_of_others_is_true() -> None:
    failed, tried = doctest.testfile(str(ROOT / "docs" / "certify_router.md"), module_relative=False)
    assert tried > 20
    assert failed == 0


def test_python_page_lists_every_name_of_kcm() -> None:
    """Promise: every name of import kcm has its place on the page on python."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for name in kcm.__all__:
        assert f"::: kcm.{name}\n" in page or name == "KcmError"
    for verb in ("run", "update", "serve"):
        assert f"::: jobs.verbs.{verb}\n" in page


def test_the_example_in_the_classifier_is_true() -> None:
    from kcm.api import classifier

    assert doctest.testmod(classifier) == (0, 6)


def test_the_table_of_units_is_what_the_outlook_says() -> None:
    page = (ROOT / "docs" / "tutorial.md").read_text()
    rows = re.findall(r"^\| ([\d.]+) \| (\d+) \|$", page, re.M)
    assert len(rows) == 6
    for epsilon, units in rows:
        assert outlook({"task": 1}, CertificateConfig(epsilon=float(epsilon)), ["global"]).needed == int(units)


def test_the_table_of_the_tutorial_is_made_by_its_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```py\n(.*?)^```$", page, re.M | re.S)
    train = [[f"what of {number}, {label}", f"intent_{label:02}"] for label in range(25) for number in range(60)]
    splits = {"train": train, "oos_train": [[f"who knows {number}", "oos"] for number in range(60)]}
    (tmp_path / "data_full.json").write_text(json.dumps(splits))
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    with (tmp_path / "intents.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["text", "intent"]
    assert [tuple(row) for row in rows] == intents(str(tmp_path / "data_full.json"))


def test_llms_txt_names_every_page() -> None:
    named = set(re.findall(r"\(docs/(\S+?)\)", (ROOT / "llms.txt").read_text(encoding="utf-8")))
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_the_page_of_results_is_made_from_the_files_of_results() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "results_page.py")], capture_output=True, text=True, check=True
    )
    assert made.stdout == (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_the_table_of_memory_is_made_from_the_results_of_the_job() -> None:
    assert memory_table() in (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_no_paragraph_of_a_page_is_longer_than_four_lines(page: Path) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text())
    paragraphs = [token.map for token in tokens if token.type == "paragraph_open" and token.level == 0]
    assert [lines for lines in paragraphs if lines and lines[1] - lines[0] > 4] == []


def test_the_readme_quotes_the_page_on_labelling() -> None:
    """What the first example prints stands in both."""
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/label.md")]
    for start in ("With ", "Bought "):
        readme, page = (next(line for line in text.splitlines() if line.startswith(start)) for text in pages)
        assert readme == page


def test_the_notebooks_run() -> None:
    """Each ends with assertions on what it shows; the quick start runs with the main job, on its registry."""
    cells = executed("continual_learning", "certify_router").cells
    shown = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds


@pytest.mark.parametrize("name", ["quickstart", "continual_learning", "certify_router"])
def test_notebook_is_stored_with_output_and_without_errors(name: str) -> None:
    """Promise: a notebook is kept with what it shows and without errors."""
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)


class _Links(HTMLParser):
    """What a page links to and shows, and the anchors that it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.anchors |= {value for name, value in attrs if name == "id" and value}
        self.targets += [value for name, value in attrs if name in ("href", "src") and value]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; `strict` makes an error of every link and anchor that mkdocs misses."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def test_no_link_of_the_site_is_dead(site: Path) -> None:
    pages = {page: _Links(page) for page in site.rglob("*.html")}
    assert len(pages) > 20
    dead = []
    for page, links in pages.items():
        for target in links.targets:
            address = urlsplit(target)
            if address.scheme or address.netloc:
                continue
            start = site if address.path.startswith("/") else page.parent
            file = (start / unquote(address.path).lstrip("/")).resolve() if address.path else page
            file = file / "index.html" if file.is_dir() else file
            anchor = unquote(address.fragment)
            known = not anchor or file not in pages or anchor in pages[file].anchors
            if not (file.is_relative_to(site) and file.is_file() and known):
                dead.append(f"{page.relative_to(site)}: {target}")
    assert dead == []


def test_the_site_has_the_pages_on_commands_and_keys(site: Path) -> None:
    """They are made from the code when the site is built, and not committed."""
    for page, shown in (("commands", "kcm submit"), ("configuration", "num_epochs")):
        assert not (ROOT / "docs" / f"{page}.md").exists()
        assert shown in (site / page / "index.html").read_text(encoding="utf-8")


def test_the_site_shows_the_files_that_its_pages_include(site: Path) -> None:
    page = (site / "extending" / "index.html").read_text(encoding="utf-8")
    shown = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", page)))
    extension = EXAMPLES / "extension"
    files = [*(extension / "kcm_extension").glob("[!_]*.py"), extension / "pyproject.toml"]
    assert len(files) == 6
    for file in files:
        assert re.sub(r"\s+", " ", file.read_text(encoding="utf-8")).strip() in shown, file.name
    for each in site.rglob("*.html"):
        assert not re.search(r"-+8 ?&lt; ?-+", re.sub(r"<[^>]+>", "", each.read_text(encoding="utf-8"))), each
