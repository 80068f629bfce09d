"""Plays a newcomer: every command of docs/tutorial.md, in an empty folder and an environment that has only the wheel.

    python -m tests.newcomer [--clinc data_full.json]            # plays the page, prints seconds by command
    python -m tests.newcomer [--clinc data_full.json] --write    # and puts what the commands said into the page

The page is the script. Lines `$ COMMAND` of its console blocks are run one after the other; one that ends with ` &`
goes on in the background, and counts as done when it has said that it answers. Python blocks are run as files. What a
command says replaces what stands below it; what a Python block says, the text block that follows it. A block of kind
`py` is not run: the one that makes the table reads a file of CLINC150's, and `intents` here does the same.

CLINC150 comes from the hub, or from a file (data_full.json of its authors). With `--borrow` what the wheel depends on
is taken from the Python that runs this script, and not installed.
"""

import argparse
import csv
import json
import os
import random
import re
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kcm.tasks.readers.hub import HubSource
from tests.ports import free_port

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
PORT = "8000"  # of the page; another one is taken where the page is played
MOST_COMMANDS = 5  # to a served model
READY, READY_S, END_S = "answers at", 600.0, 240.0
Row = tuple[str, str]

_BLOCK = re.compile(r"^```(console|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@dataclass(frozen=True)
class Played:
    """A command, or a block of Python, and what came of it."""

    command: str
    seconds: float
    said: str


@dataclass
class Newcomer:
    """A person in an empty folder who types what a page says.

    `assets` are weights that were fetched before. `borrow` spares the installation of what the wheel depends on.
    `more` are words that are added to a command, to make it shorter in a test; the page does not show them.
    """

    folder: Path
    wheel: Path
    assets: Path | None = None
    borrow: bool = False
    more: Mapping[str, str] = field(default_factory=dict)
    played: list[Played] = field(default_factory=list)
    _background: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        shutil.copy(self.wheel, self.folder)
        if self.assets is not None:
            (self.folder / "assets").symlink_to(self.assets.absolute())
        self.port = str(free_port())

    def play(self, page: str) -> str:
        """Do all that the page says, and give the page with what it said. RuntimeError for a command that fails."""
        said_by_python = ""

        def played(block: re.Match[str]) -> str:
            nonlocal said_by_python
            kind, body = block.groups()
            if kind == "console":
                body = "".join(self._console(body))
            elif kind == "python":
                said_by_python = self._python(body)
            elif said_by_python:
                body, said_by_python = said_by_python, ""
            return f"```{kind}\n{body}```"

        try:
            return _BLOCK.sub(played, page)
        finally:
            self._interrupt()

    @property
    def to_a_served_model(self) -> list[Played]:
        """The commands up to the one that serves."""
        served = next(number for number, each in enumerate(self.played) if " serve " in each.command)
        return self.played[: served + 1]

    def _interrupt(self) -> None:
        """Press Ctrl-C in what runs in the background, and note how long it took to end."""
        for process in self._background:
            started = time.perf_counter()
            os.killpg(process.pid, signal.SIGINT)
            try:
                said, _ = process.communicate(timeout=END_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                said, _ = process.communicate()
            self.played.append(Played("Ctrl-C", time.perf_counter() - started, self._plain(said)))
        self._background.clear()

    def _console(self, body: str) -> Iterator[str]:
        for line in body.splitlines():
            if line.startswith("$ "):
                yield f"{line}\n{self._command(line.removeprefix('$ '))}"

    def _command(self, command: str) -> str:
        typed = self._here(command) + self.more.get(command, "")
        started = time.perf_counter()
        if typed.endswith(" &"):
            said, code = self._start(f"{typed.removesuffix(' &')} --set serve.port={self.port}")
        else:
            done = self._run(["bash", "-c", typed], stderr=subprocess.STDOUT)
            said, code = done.stdout, done.returncode
        if code:
            raise RuntimeError(f"{command!r} failed with {code}:\n{said}")
        self.played.append(Played(command, time.perf_counter() - started, self._plain(said)))
        if self.borrow and command.startswith("pip install") and "kcm_cascade" in command:
            self._borrow()
        return self.played[-1].said

    def _python(self, body: str) -> str:
        file = self.folder / "block.py"
        file.write_text(self._here(body), encoding="utf-8")
        started = time.perf_counter()
        done = self._run(["python", file.name], stderr=subprocess.PIPE)
        if done.returncode:
            raise RuntimeError(f"the block failed:\n{body}\n{done.stdout}\n{done.stderr}")
        self.played.append(
            Played(f">>> {body.splitlines()[0]} ...", time.perf_counter() - started, self._plain(done.stdout))
        )
        return self.played[-1].said

    def _run(self, command: Sequence[str], stderr: int) -> subprocess.CompletedProcess[str]:
        environment = self._environment
        program = shutil.which(command[0], path=environment["PATH"]) or command[0]
        return subprocess.run(
            [program, *command[1:]], cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        )

    def _start(self, typed: str) -> tuple[str, int]:
        """Start a command, and wait until it says that it answers; what it said, and 0 if it does."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {typed}"],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_heed_ctrl_c,
        )
        self._background.append(process)
        assert process.stdout is not None
        said, deadline = "", time.monotonic() + READY_S
        for line in process.stdout:
            said += line
            if READY in line:
                return said, 0
            if time.monotonic() > deadline:
                break
        return said, process.poll() or 1

    def _borrow(self) -> None:
        """Let the environment see what this Python has installed, after what it has itself."""
        own = next((self.folder / ".venv" / "lib").glob("python*/site-packages"))
        (own / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")

    @property
    def _environment(self) -> dict[str, str]:
        foreign = ("RAY_ADDRESS", "KCM_", "PYTHON", "MLFLOW_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        own = str(self.folder / ".venv" / "bin")
        alone = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"} if self.borrow else {}
        set_here = {"PATH": os.pathsep.join([own, kept["PATH"]]), "COLUMNS": "100", "PIP_QUIET": "1"}
        return kept | alone | set_here | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "KCM_CACHE": str(self.folder / "cache")}

    def _here(self, text: str) -> str:
        return text.replace(f":{PORT}", f":{self.port}")

    def _plain(self, text: str) -> str:
        """What was said, as it would read on any machine."""
        plain = _ANSI.sub("", text).replace(str(self.folder), "~/tutorial").replace(f":{self.port}", f":{PORT}")
        lines = (line.rstrip() for line in plain.splitlines())
        return "".join(f"{line}\n" for line in lines if line)


def build_wheel(folder: Path) -> Path:
    """The wheel of this repository, built in a copy of it."""
    copy = folder / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for package in ("kcm", "pipelines", "jobs"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(copy)], check=True)
    return next(folder.glob("kcm_cascade-*.whl"))


def intents(clinc: str, num_labels: int = 20, rows_per_label: int = 50) -> list[Row]:
    """Texts with their intents, drawn from the train rows of CLINC150, a file or the id of a data set on the hub.

    Rows out of scope are a label like the others.
    """
    texts: dict[str, list[str]] = {}
    if Path(clinc).exists():
        splits = json.loads(Path(clinc).read_bytes())
        for text, label in [*splits["train"], *splits["oos_train"]]:
            texts.setdefault(label, []).append(text)
    else:
        for row in HubSource(id=clinc, subset="plus", label_column="intent").build(ROOT / "assets").records:
            if row.split == "train" and row.label is not None:
                texts.setdefault(row.label, []).append(row.text)
    draw = random.Random(0)
    labels = sorted(draw.sample(sorted(texts), num_labels))
    rows = [(text, label) for label in labels for text in draw.sample(sorted(texts[label]), rows_per_label)]
    draw.shuffle(rows)
    return rows


def write_tables(folder: Path, rows: Sequence[Row]) -> None:
    """`intents.csv` with all rows, and `few.csv` with the first 200."""
    for name, part in (("intents", rows), ("few", rows[:200])):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "intent"), *part])


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="newcomer-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _heed_ctrl_c() -> None:
    """A terminal's programs end by Ctrl-C; what runs in the background may have been started to ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    """Play the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clinc", default="clinc/clinc_oos", metavar="FILE_OR_HUB_ID", help="CLINC150")
    parser.add_argument("--assets", type=Path, help="weights that were fetched before; without it they are fetched")
    parser.add_argument("--borrow", action="store_true", help="do not install what the wheel depends on")
    parser.add_argument("--write", action="store_true", help="put what the commands said into the page")
    arguments = parser.parse_args()
    with _folder() as built, _folder() as folder:
        write_tables(folder, intents(arguments.clinc))
        newcomer = Newcomer(folder, build_wheel(built), arguments.assets, arguments.borrow)
        try:
            page = newcomer.play(PAGE.read_text(encoding="utf-8"))
        finally:
            for each in newcomer.played:
                print(f"{each.seconds:8.1f} s  {each.command}")
    if arguments.write:
        PAGE.write_text(page, encoding="utf-8")
    commands = newcomer.to_a_served_model
    print(f"{len(commands)} commands and {sum(each.seconds for each in commands):.0f} s to a served model")
    sys.exit(len(commands) > MOST_COMMANDS)


if __name__ == "__main__":
    main()
