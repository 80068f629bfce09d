"""All checks and figures that need a GPU: networks, encoders, the whole job, serving with shares of one, certificates.

    kcm assets
    python benchmarks/gpu.py [--only PART] [--device cpu] [--write]

Without a GPU it says so, and ends well; `--device cpu` rehearses the same steps without one, and writes nothing. Each
part first checks that the GPU gives what the CPU gives, within the tolerance that it names, and then measures: times
are medians over rounds in which all contestants take turns. The compiler makes the fused kernels (Triton) of a GPU.
Contestants that are not installed are left out: pip install "kcm-cascade[benchmark]", and efficient-kan from its
repository.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import httpx
import torch
from machine import free_port, machine
from rich.console import Console
from steps import answer, seconds, train_step
from torch import nn

from jobs.commands.serving.service import ServiceSettings, serving
from jobs.models import served_source
from kcm.config import load_config
from kcm.encoders import TextEncoderConfig
from kcm.inputs.content import contents
from kcm.kan import KAN, MLP
from kcm.tasks.readers.reviews import read_reviews
from pipelines.config import RunConfig
from pipelines.run import run

RESULTS = Path(__file__).parent / "results" / "gpu.json"
REVIEWS = Path(__file__).parents[1] / "jobs" / "configs" / "reviews.yaml"
SHAPE, BATCHES, ROUNDS = (384, 64, 150), (32, 160, 256, 1024, 8192), 9
SAMPLE_S = 0.02
MODELS = ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-mpnet-base-v2")
NETWORKS_AGREE, FEATURES_AGREE, LOW_PRECISION_COSINE = 1e-3, 1e-4, 0.99  # TF32 products are not used

Part = Callable[[str, Path], dict[str, Any]]


def networks(device: str, assets: Path) -> dict[str, Any]:
    """Milliseconds of a train step and of an answer, plain and compiled, by batch."""
    ours = KAN(SHAPE, seed=0)
    x_ND = 2 * torch.randn(50, SHAPE[0], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected_NC = ours(x_ND)
        made = {name: module.to(device) for name, module in contestants(ours).items()}
        for name in [each for each in made if each.startswith("ours")]:
            torch.testing.assert_close(made[name](x_ND.to(device)).cpu(), expected_NC, atol=NETWORKS_AGREE, rtol=1e-3)
    found: dict[str, Any] = {}
    for kind, action in (("forward", answer), ("train step", partial(train_step, num_labels=SHAPE[-1]))):
        found[kind] = {}
        for batch in BATCHES:
            x_ND = torch.randn(batch, SHAPE[0], device=device)
            found[kind][batch] = turns({name: action(each, x_ND) for name, each in made.items()})
    return found


def contestants(ours: KAN) -> dict[str, nn.Module]:
    """Networks of one shape, and those of other packages that are there."""
    found: dict[str, nn.Module] = {"ours": ours, "MLP, equal parameters": MLP.matching(ours)}
    if inkan := _installed("inkan"):
        found["inkan"] = nn.Sequential(*(inkan.KANLayer(i, o, grid_range=(-3.0, 3.0)) for i, o in pairwise(SHAPE)))
    if efficient := _installed("efficient_kan"):
        found["efficient-kan"] = efficient.KAN(list(SHAPE), grid_range=[-3, 3])
    return found | {f"{name}, compiled": torch.compile(module, dynamic=True) for name, module in found.items()}


def _installed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        return None


def turns(runs: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Median milliseconds of each."""
    repetitions = {name: max(1, int(SAMPLE_S / min(seconds(each, 1) for _ in range(4)))) for name, each in runs.items()}
    rounds = [{name: seconds(each, repetitions[name]) for name, each in runs.items()} for _ in range(ROUNDS)]
    return {name: round(1000 * statistics.median(each[name] for each in rounds), 4) for name in runs}


def sentences(assets: Path, number: int) -> list[str]:
    """The first review sentences."""
    return [record.text for record in islice(read_reviews(assets), number) if record.text]


def encoders(device: str, assets: Path) -> dict[str, Any]:
    """Rows a second, and milliseconds for a sentence alone, in float32 and bfloat16."""
    texts = contents(sentences(assets, 512))
    found: dict[str, Any] = {}
    for model in MODELS:
        exact_ND = TextEncoderConfig(model=model, runtime="torch").load(assets).encode(texts[:64])
        for precision in ("float32", "bfloat16"):
            config = TextEncoderConfig(model=model, runtime="torch", precision=precision, batch_size=256)
            encoder = config.load(assets, device)
            vectors_ND = encoder.encode(texts[:64])
            cosine = float((vectors_ND * exact_ND).sum(1).min())
            largest = float(abs(vectors_ND - exact_ND).max())
            assert largest <= FEATURES_AGREE if precision == "float32" else cosine >= LOW_PRECISION_COSINE, largest
            many = seconds(partial(encoder.encode, texts), 1)
            alone = seconds(partial(encoder.encode, texts[:1]), 8)
            found[f"{model}, {precision}"] = {
                "rows_per_s": len(texts) / many,
                "one_ms": 1000 * alone,
                "largest_difference": largest,
                "least_cosine": cosine,
            }
    return found


def job(device: str, assets: Path) -> dict[str, Any]:
    """Seconds of the demo, on the GPU and without it, and what either promises."""
    found = {}
    for where in dict.fromkeys((device, "cpu")):
        with tempfile.TemporaryDirectory() as storage:
            started = time.monotonic()
            result = run(_config(where, assets, storage))
            found[where] = {"seconds": time.monotonic() - started, "result": result.get("decision")}
    return found


def served(device: str, assets: Path) -> dict[str, Any]:
    """Milliseconds of an answer where encoder and large model have half a GPU each."""
    with tempfile.TemporaryDirectory() as storage:
        config = _config(device, assets, storage)
        run(config, promote=True)
        share = 0.5 if device == "cuda" else 0.0
        halves = {"encoder": {"gpus": share}, "large": {"gpus": share}, "port": free_port()}
        config = config.model_copy(update={"serve": type(config.serve).model_validate(halves)})
        texts = sentences(assets, 200)
        with (
            serving(served_source(config, None, None), ServiceSettings.of(config)) as url,
            httpx.Client(base_url=url) as client,
        ):
            standing = client.get("/v1/model").raise_for_status().json()["standing"]
            assert standing == "holds", standing  # what trained on a GPU is served on one
            taken: dict[str, list[float]] = {}
            for text in texts:
                started = time.perf_counter()
                response = client.post("/v1/predict", json={"inputs": [{"text": text}]}).raise_for_status()
                route = response.json()["answers"][0]["route"]
                taken.setdefault(route, []).append(1000 * (time.perf_counter() - started))
    return {route: {"count": len(times), "median_ms": statistics.median(times)} for route, times in taken.items()}


def _config(device: str, assets: Path, storage: str) -> RunConfig:
    changes = [f"assets_path={assets}", f"storage_path={storage}", f"cluster.use_gpu={device == 'cuda'}"]
    return load_config(RunConfig, REVIEWS, [*changes, "cluster.num_encoders=1"])


PARTS: dict[str, Part] = {
    "networks": networks,
    "encoders": encoders,
    "job": job,
    "serving": served,
}


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal without a GPU")
    parser.add_argument("--assets", type=Path, default=Path("assets"), help="folder of the assets")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    arguments = parser.parse_args()
    console = Console(width=120)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        console.print("no GPU here: nothing was checked or measured")
        return
    found: dict[str, Any] = {"machine": machine()}
    for name, part in PARTS.items():
        if arguments.only in (None, name):
            found[name] = part(arguments.device, arguments.assets)
            console.print(name, found[name])
    if arguments.write and arguments.device == "cuda":
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
