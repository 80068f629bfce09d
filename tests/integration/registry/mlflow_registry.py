"""A registry with one model, and MLflow's own processes over it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from kcm.bundle.bundle import Bundle
from pipelines.registry.pyfunc import register_model
from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.tracking import Tracking, set_champion
from tests.ports import free_port

WAIT_S = 300


def registry_of(bundle: Bundle, root: Path) -> str:
    """The URI of a new registry, whose champion of `reviews` this bundle is, and whose one run has figures."""
    folder = bundle.write(root / "bundle")
    tracking = Tracking.open(TrackingConfig(), root, name="reviews", key="key")
    number = register_model(tracking, "reviews", folder, "fingerprint")
    tracking.log_learning({"kcm": [[0.9, None], [0.8, 0.7]]}, ["films", "books"])
    report = root / "report.html"
    report.write_text("<!doctype html>")
    tracking.log({"train": {"learning_rate": 0.001}}, {"kcm/calls_saved": 0.527}, report)
    tracking.finish()
    set_champion(tracking.uri, "reviews", number)
    return tracking.uri


@contextmanager
def mlflow_process(*words: str, uri: str, ready: str, folder: Path) -> Iterator[str]:
    """The URL at which a command of MLflow answers `ready` within the block."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", *words, "--host", "127.0.0.1", "--port", str(port)]
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # MLflow calls uvicorn by name
    settings = {"MLFLOW_TRACKING_URI": uri, "KCM_CACHE": str(folder / "cache"), "PATH": programs}
    settings["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # each kind of job has a process of its own
    environment = os.environ | settings
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + WAIT_S
        while True:
            try:
                if httpx.get(f"{url}{ready}", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            alive = process.poll() is None and time.monotonic() < deadline
            assert alive, (folder / "log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # its workers, too
        process.wait(timeout=60)
