"""`kcm savings`: the printed answer, its JSON, the bundle and the configuration of a service, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from jobs.cli import app
from jobs.views.savings import per_hundred
from kcm.bundle.bundle import Bundle
from kcm.logs.template import Template
from tests.kcm.logs.logs import AFTER, BEFORE, FILLER, QUEUES, SECRET, SYSTEM, exchanges, openai_rows, write_lines
from tests.tiny_bert import save_bert


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder of the test's own."""
    monkeypatch.chdir(tmp_path)


def run(*words: str, encoder: str = "words") -> Result:
    return CliRunner().invoke(app, ["savings", *words, "--encoder", encoder, "--target", ".95"])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "log.jsonl", openai_rows(exchanges(1500)))


def test_answer_for_a_log(log: Path) -> None:
    done = run(str(log), "--json", "result.json")
    assert done.exit_code == 0, done.output
    result = json.loads(Path("result.json").read_text())
    assert result["calls"] == 1500
    best = next(each for each in result["templates"] if each["kind"] == "classification")
    share = f"{100 * best['could_save']:.0f}%"
    assert f"{share} of these calls could have been answered by a small model; with 96% probability" in done.stdout
    assert f"at most {per_hundred(best['bound'])} of all answers to this template would differ" in done.stdout
    assert best["bound"] <= 0.05
    assert f"; saves ${best['saves_a_month']:,.2f} a month" in done.stdout
    assert "OpenAI requests" in done.stdout
    assert "free text" in done.stdout
    assert "No bundle: it needs a text encoder: leave out `--encoder words`" in done.stdout
    assert {"labels", "spend", "could_save", "bound", "delta"} <= best.keys()


def test_service_answers_the_same_requests(log: Path, tmp_path: Path) -> None:
    """The template in the file recognises a request of the log; the bundle is read, with its certificate."""
    words = [*" ".join(QUEUES.values()).split(), *FILLER.split()]
    encoder = save_bert(tmp_path / "bert", words)
    done = run(str(log), "--serve", "serve.yaml", "--base-url", "http://127.0.0.1:1/v1", encoder=str(encoder))
    assert done.exit_code == 0, done.output
    proxy = yaml.safe_load(Path("serve.yaml").read_text())["serve"]["proxy"]
    assert proxy["upstream"] == "http://127.0.0.1:1/v1"
    assert proxy["prices"] == {"gpt-4o-2024-08-06": [2.5, 10.0]}
    template = Template.model_validate(proxy["template"])
    request = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{BEFORE}I paid twice{AFTER}"}]
    assert template.text(request) == "I paid twice"
    bundle = Bundle.read(Path("serve.bundle"))
    assert bundle.label_names == ("billing", "login", "shipping")
    assert bundle.certificates[None].epsilon == pytest.approx(0.05)
    assert bundle.certificates[None].route == bundle.policy.decision
    assert bundle.void_on("cpu", "cpu") is None
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path != log]
    assert SECRET not in done.output
    assert not any(SECRET.encode() in content for content in written)


def test_template_without_fixed_text_is_not_served(tmp_path: Path) -> None:
    rows = [
        {"input": call["messages"][-1]["content"][8:-7], "output": call["reply"]} for call in exchanges(900, free=0)
    ]
    write_lines(tmp_path / "table.jsonl", rows)
    encoder = save_bert(tmp_path / "bert", [*" ".join(QUEUES.values()).split(), *FILLER.split()])
    done = run("table.jsonl", "--serve", "serve.yaml", "--llm", "gpt-4o", encoder=str(encoder))
    assert done.exit_code == 0, done.output
    assert "warning: serve.yaml is not written: the template has no fixed text" in done.stderr
    assert not Path("serve.yaml").exists()
    assert "900 calls have neither a cost nor a listed price" in done.stderr


def test_unreadable_rows_are_counted(log: Path) -> None:
    lines = log.read_text().splitlines()
    log.write_text("\n".join(line if number % 2 else line[:40] for number, line in enumerate(lines)))
    done = run(str(log))
    assert done.exit_code == 0
    assert "warning: 750 of 1,500 rows cannot be read: 750 not a JSON object" in done.stderr


def test_short_log_asks_for_more_calls(tmp_path: Path) -> None:
    """Nothing is written, which is said, and the next step is the remedy."""
    write_lines(tmp_path / "log.jsonl", openai_rows(exchanges(100, free=0)))
    done = run("log.jsonl", "--serve", "serve.yaml")
    assert "calls to certify on, at least" in done.stdout
    assert "next: run this on a longer log" in done.stdout
    assert "warning: serve.yaml is not written: nothing could be saved" in done.stderr


def test_free_text_only(tmp_path: Path) -> None:
    done = run(str(write_lines(tmp_path / "log.jsonl", openai_rows(exchanges(200, free=1.0)))))
    assert "No classification: 200 calls, 100% of all, 100% of the spend" in done.stdout
    assert "next: nothing to set up" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gone.jsonl"], "no such file (gone.jsonl)"),
        (["empty.jsonl"], "no row is a call of an LLM"),
        (["rows.csv", "--input", "body", "--answer", "gone"], "(1 without a column 'gone')"),
        (["empty.jsonl", "--serve", "taken.yaml"], "the file is there already (taken.yaml)"),
        (["empty.jsonl", "--out", "."], "something else lies where the bundle goes"),
        (["empty.jsonl", "--delta", "2"], "delta"),
    ],
)
def test_bad_input_is_one_line(words: list[str], said: str) -> None:
    Path("empty.jsonl").write_text("")
    Path("taken.yaml").write_text("")
    Path("rows.csv").write_text("body,queue\nhello,login\n")
    done = run(*words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("share", "said"), [(0.02, "2 in 100"), (0.005, "5 in 1,000"), (0.01531, "16 in 1,000"), (0.1, "10 in 100")]
)
def test_share_in_words(share: float, said: str) -> None:
    assert per_hundred(share) == said
