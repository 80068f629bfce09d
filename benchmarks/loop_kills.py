"""What SIGKILL costs: an update killed at random moments, and a server killed while it answers and stores labels.

An update that is killed is started again until it ends, and must end as one that nobody killed. Of a server, all labels
that it acknowledged must be in the log, and all decisions but those of the last second before a kill.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import psutil
import torch
from loop_scene import SMALL, Scene
from machine import free_port
from mlflow import MlflowClient
from rich.console import Console

from kcm.bundle.bundle import Bundle
from kcm.tasks.readers.reviews import read_reviews
from pipelines.loop.recertify import LineageLedger
from pipelines.loop.state import LoopState, log_reader, watermark_of
from pipelines.serve.config import log_url
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.tables import DECISIONS, FEEDBACK
from pipelines.stages.register import BundleArtefact, Register
from pipelines.training.artefacts import TrainedArtefact

NUM_ROWS = 320  # of traffic
LABELLED = 8  # one row in so many
READY_S = 600.0
COMMIT_S = 1.0  # within which a decision is in the log
WHOLE = 6  # one kill in so many takes all processes of the service, the others one replica
ITEMS = 3  # of a request
CALLERS = 2

console = Console(width=120)


def kill_updates(scene: Scene, num_kills: int, seed: int) -> list[tuple[str, str, str, str]]:
    """Kill `kcm update` at so many random moments; the rows of the table."""
    scene.result_of("run")
    rows = [row for row in read_reviews(scene.assets) if row.task == "tweets"][:NUM_ROWS]
    scene.send_labels(scene.play(rows), LABELLED)
    scene.save("played")
    _, taken = scene.result_of("update")
    expected, moments = _ended(scene), random.Random(seed)
    kills = turns = 0
    different: list[str] = []
    while kills < num_kills:
        scene.restore("played")
        while kills < num_kills:
            process = scene.start("update")
            with suppress(subprocess.TimeoutExpired):
                process.wait(moments.uniform(0, taken.seconds))
                break
            _kill(process)
            kills += 1
        scene.result_of("update")  # which ends what is left, or finds that nothing is
        turns += 1
        found = _ended(scene)
        different += [name for name in expected if found[name] != expected[name]]
        console.print(f"{kills} kills, {turns} turns, different: {', '.join(different) or 'nothing'}")
    summary = f"{kills} kills in {turns} turns of {taken.seconds:.0f} s: different are {', '.join(different) or 'none'}"
    return [("SIGKILL of an update: champion, networks, R, policy, looks, versions, log", "the same", "", summary)]


def _ended(scene: Scene) -> dict[str, Any]:
    """What a turn has left, but for times."""
    config = scene.config
    state = LoopState.of(config)
    (turn,) = state.attempts.turns()
    current = state.champions.pointer.current()
    assert current is not None
    assert turn["candidate"] is not None
    bundle = Bundle.read(state.store.named(Register.stage, turn["candidate"]["bundle"]).as_a(BundleArtefact).bundle)
    (extended,) = state.store.finished("extend")
    log = DecisionLog(log_url(config.serve, config.storage_folder), 30.0, config.name)
    versions = MlflowClient(state.champions.uri).search_model_versions(f"name='{state.champions.model}'")
    return {
        "champion": current.champion.version,
        "verdicts": [(name, gate["verdict"]) for name, gate in turn["gates"].items()],
        "R": extended.as_a(TrainedArtefact).state("kcm")["accuracy"],
        "networks": _digest(bundle.collaborator.state_dict()),
        "policy": bundle.policy.model_dump(mode="json"),
        "looks": len(LineageLedger(state.store.control, config.name).attempts()),
        "versions": sorted(each.version for each in versions),
        "log": [len(log.read(table)) for table in (DECISIONS, FEEDBACK)],
    }


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    hashed = hashlib.sha256()
    for name, tensor in tensors.items():
        hashed.update(name.encode() + tensor.numpy().tobytes())
    return hashed.hexdigest()


def kill_servers(scene: Scene, num_kills: int, seed: int) -> list[tuple[str, str, str, str]]:
    """Kill a served cascade at so many random moments under load; the rows of the table."""
    if not scene.storage.exists():
        scene.result_of("run")
    served = replace(scene, values=SMALL | {"serve.port": free_port()})
    texts = [row.text for row in read_reviews(scene.assets) if row.task == "tweets"][NUM_ROWS : 2 * NUM_ROWS]
    before, moments = watermark_of(served.config), random.Random(seed)
    process = served.start("serve")
    callers = _Callers(f"http://127.0.0.1:{served.config.serve.port}", texts)
    killed: list[tuple[float, float]] = []
    try:
        callers.wait(process)
        with callers:
            for number in range(num_kills):
                callers.wait(process)
                time.sleep(moments.uniform(0, 4))
                began = time.monotonic()
                if number % WHOLE == WHOLE - 1:
                    _kill(process)
                    process = served.start("serve")
                else:
                    victim = moments.choice(_replicas(process))
                    victim.kill()
                killed.append((began, time.monotonic()))  # finding whom to kill takes a while
                labelled = len(callers.acknowledged)
                console.print(f"{number + 1} kills, {len(callers.answered)} requests, {labelled} labels")
            callers.wait(process)
        time.sleep(2 * COMMIT_S)
    finally:
        _kill(process)
    return _server_rows(served, callers, killed, before)


def _server_rows(
    scene: Scene, callers: _Callers, killed: list[tuple[float, float]], before: int
) -> list[tuple[str, str, str, str]]:
    config = scene.config
    log = DecisionLog(log_url(config.serve, config.storage_folder), 30.0, config.name)
    labels = {(row["request_id"], row["item"], row["label"]) for row in log.read(FEEDBACK)}
    decided = {row["request_id"] for row in log.read(DECISIONS)}
    lost = [at for request, at in callers.answered.items() if request not in decided]
    early = [at for at in lost if not any(at <= ended and began <= at + COMMIT_S for began, ended in killed)]
    with log_reader(config) as reader:
        gaps = reader.gaps(config.application, before, watermark_of(config))
    forgotten = callers.acknowledged - labels
    summary = f"{len(callers.acknowledged)} acknowledged, {len(forgotten)} lost in {len(killed)} kills"
    answered = (
        f"{len(callers.answered)} requests, {len(lost)} lost, {len(early)} of them not within a second of a kill;"
        f" the log counts {gaps} missing items"
    )
    return [
        ("SIGKILL of a server: labels acknowledged and lost", "0", "", summary),
        ("SIGKILL of a server: decisions lost that were older than a second", "0", "", answered),
    ]


@dataclass
class _Callers:
    """Callers that ask, and label what they asked, until they are stopped; failures are asked again as others."""

    url: str
    texts: list[str]
    answered: dict[str, float] = field(default_factory=dict)  # request -> when its answer came
    acknowledged: set[tuple[str, int, str]] = field(default_factory=set)  # labels
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> _Callers:
        self._threads = [threading.Thread(target=self._ask, args=(start,)) for start in range(CALLERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Return once an input is answered."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                body = {"inputs": [{"text": self.texts[0]}]}
                if httpx.post(f"{self.url}/v1/predict", json=body, timeout=30).status_code == 200:
                    return
            if process.poll() is not None:
                raise RuntimeError(f"kcm serve ended with {process.returncode}")
            time.sleep(0.2)
        raise RuntimeError("the service does not answer")

    def _ask(self, number: int) -> None:
        with httpx.Client(timeout=30, base_url=self.url) as client:
            while not self._stop.wait(0.05):
                number += CALLERS
                with suppress(httpx.HTTPError):
                    self._ask_once(client, number)

    def _ask_once(self, client: httpx.Client, number: int) -> None:
        texts = [self.texts[(number * ITEMS + place) % len(self.texts)] for place in range(ITEMS)]
        answer = client.post("/v1/predict", json={"inputs": [{"text": text} for text in texts]}).raise_for_status()
        request = answer.json()["request_id"]
        self.answered[request] = time.monotonic()
        label = ("positive", "negative")[number // CALLERS % 2]
        body = {"request_id": request, "labels": [{"item": 0, "label": label}]}
        client.post("/v1/feedback", json=body).raise_for_status()
        self.acknowledged.add((request, 0, label))


def _replicas(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            if "".join(child.cmdline()).startswith("ray::ServeReplica"):
                found.append(child)
    return found


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all below it at once, as a power cut does."""
    with suppress(psutil.Error):
        below = psutil.Process(process.pid).children(recursive=True)
        for each in (process.pid, *(child.pid for child in below)):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
    process.wait()
