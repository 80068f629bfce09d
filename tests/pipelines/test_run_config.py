"""A configuration that cannot be trained is refused when it is read, with the fix."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from jobs.settings import ServiceSettings
from kcm.collaborator.collaborator import Collaborator
from kcm.config import Config, load_config, parse_config
from kcm.errors import ConfigError
from kcm.kan.inspect import CurveNetwork, edge_curve
from kcm.large.response_cache import ResponseStore
from kcm.redact import redacted_values
from pipelines.config import RunConfig
from pipelines.paid_answers import paid_answers
from pipelines.serve.deploy.app import AppConfig

CONFIG = Path(__file__).parents[2] / "jobs/configs/reviews.yaml"


UPDATED = ["train.mask_unseen=true", "serve.feedback.store_payloads=text", "update={}"]
ON_A_BUCKET = "storage_path=s3://bucket/kcm"
MLFLOW, LOG = "tracking.uri=http://mlflow:5000", "serve.feedback.url=sqlite:////log/kcm.db"
NO_DATABASES = "s3://bucket/kcm cannot hold databases: set {}, such as"
NO_KCM = r"an edge of KCM has [02] free coefficients.*set network\.basis: auto, pspline or quadratic"
NO_INPUTS = r"set serve\.feedback\.store_payloads to text or all"
NO_NAME = "must be letters, digits, dots, dashes and underscores"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network={}"], r"network\.hidden = \[16\].*Set network\.hidden: \[\]"),
        (["learner.strength=0"], r"learner\.strength must be at least 0\.000001, not 0"),
        (["network.mixing=-1"], r"network\.mixing must be at least 0, not -1"),
        (["network={hidden: [], basis: relu, mixing: 64}"], NO_KCM),
        (["network={hidden: [], grid_size: 1}"], NO_KCM),
        ([ON_A_BUCKET], NO_DATABASES.format("tracking.uri and serve.feedback.url")),
        ([ON_A_BUCKET, MLFLOW], NO_DATABASES.format("serve.feedback.url")),
        ([ON_A_BUCKET, LOG], NO_DATABASES.format("tracking.uri")),
        (["update={}"], r"update: needs train\.mask_unseen: true"),
        ([*UPDATED, "serve.feedback.store_payloads=none"], NO_INPUTS),
        ([*UPDATED, "serve.feedback.store_payloads=escalated"], NO_INPUTS),
        ([*UPDATED, "certificate.epsilon=0"], r"set certificate\.epsilon above 0"),  # traffic credits no wins
        ([*UPDATED, "update.aproval=manual"], r"did you mean 'update\.approval'"),
        (["learner=analytic"], "bad configuration: learner"),
        (["encoder=minilm"], "bad configuration: encoder"),
        (["tune=5"], "bad configuration: tune"),
        (["tune.gates=5"], r"tune\.gates must be a list, not 5"),
        (["tune.gates=signals"], r"tune\.gates must be a list, not 'signals'"),
        (["learner.equal_classes=all"], r"learner\.equal_classes must be a number, not 'all'"),
        *(([f"name={json.dumps(name)}"], NO_NAME) for name in ("Straße 1 ü", "-a", "", "a/b")),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_in_one_line(overrides: list[str], message: str) -> None:
    """Promise: a configuration that cannot work is refused with its place and the fix."""
    with pytest.raises(ConfigError, match=message) as refused:
        load_config(RunConfig, CONFIG, overrides)
    assert "\n" not in str(refused.value)


OWN_DATA = CONFIG.with_name("own_data.yaml")
UNNAMED = ["learner={}", "network={}", "train={}"]


def test_a_run_that_names_no_learner_learns_as_own_data_does() -> None:
    named, unnamed = load_config(RunConfig, OWN_DATA), load_config(RunConfig, OWN_DATA, UNNAMED)
    assert (unnamed.learner, unnamed.network, unnamed.train) == (named.learner, named.network, named.train)


def test_what_is_set_beside_no_named_learner_stays() -> None:
    config = load_config(RunConfig, OWN_DATA, [*UNNAMED, "learner={strength: 0.01}", "network={mixing: 64}"])
    assert (config.learner.name, config.learner.strength) == ("analytic", 0.01)
    assert (config.network.basis, config.network.mixing) == ("auto", 64)
    squares = load_config(RunConfig, OWN_DATA, [*UNNAMED, "network={basis: quadratic}"]).network
    assert load_config(RunConfig, OWN_DATA, ["learner={name: slda}"]).network.basis == "pspline"  # leaves no rows out
    assert squares == config.network.model_copy(update={"mixing": 512}).with_basis(
        "quadratic"
    )  # of as many coefficients


WITH_KCM = ("reviews", "reviews_full", "own_data", "vision", "openai", "amazon_openai", "fashion_long_tail")


@pytest.mark.parametrize("name", WITH_KCM)
def test_kcm_learns_four_coefficients_an_edge(name: str) -> None:
    """Of 40 labels with any weights, the curves of an edge span four dimensions beside a constant and a line."""
    network = load_config(RunConfig, CONFIG.with_stem(name)).network
    judge = Collaborator(12, 40, network, "kan", seed=0).judge
    assert isinstance(judge, CurveNetwork)
    layer = judge.kan_layers[0]
    points = torch.linspace(*layer.span, 101)
    curves = [edge_curve(layer, layer.in_features - 1, output, points)[1] for output in range(layer.out_features)]
    curves_PO, lines_P2 = np.stack(curves, 1), np.stack([np.ones(101), points], 1)
    rest = curves_PO - lines_P2 @ np.linalg.lstsq(lines_P2, curves_PO)[0]
    assert np.linalg.matrix_rank(rest, tol=1e-3 * np.abs(rest).max()) >= 4


def test_bucket_assets_have_a_local_folder_and_travel_as_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: assets in a bucket have a folder on each node and travel as their uri."""
    given = ["assets_path=s3://bucket/kcm"]
    here = load_config(RunConfig, CONFIG, given)
    monkeypatch.setenv("KCM_CACHE", str(tmp_path))
    there = parse_config(RunConfig, here.model_dump(mode="json"))
    assert here.model_dump(mode="json")["assets_path"] == "s3://bucket/kcm"
    assert there.assets_path == tmp_path / "assets" / "s3%3A%2F%2Fbucket%2Fkcm"


@pytest.mark.parametrize(
    ("storage", "folder"), [("s3://bucket/kcm", "node/storage/"), ("file:///a/storage", "/a/storage"), ("a", "/a")]
)
def test_a_storage_has_a_folder_on_every_node(storage: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCM_CACHE", "/node")
    config = load_config(RunConfig, CONFIG, [f"storage_path={storage}", MLFLOW, LOG])
    assert folder in str(config.storage_folder)
    assert config.storage_folder.is_absolute()
    assert config.model_dump(mode="json")["storage_path"] == (storage if "s3" in storage else str(config.storage_path))


@pytest.mark.parametrize(
    ("overrides", "share"),
    [
        ([], 0.0),
        (UPDATED, 0.05),
        ([*UPDATED, "serve.port=8001"], 0.05),
        ([*UPDATED, "serve.audit.seed=1"], 0.05),
        ([*UPDATED, "serve.audit.share=0.2"], 0.2),
    ],
)
def test_a_cascade_that_is_updated_is_audited(overrides: list[str], share: float) -> None:
    assert load_config(RunConfig, CONFIG, overrides).serve.audit.share == share


@pytest.mark.parametrize(
    "needs",
    [
        "learner.equal_classes=0.5",
        "tasks.long_tail={imbalance_factor: 10}",
        "learner.name=replay",
    ],
)
def test_left_out_train_rows_or_validate_rows_choose(needs: str) -> None:
    """Promise: what train rows left out cannot choose for has validate rows."""
    assert load_config(RunConfig, OWN_DATA).tasks.fractions["validate"] == 0
    with pytest.raises(ConfigError, match=r"needs learner.name: analytic, learner\.equal_classes: 0"):
        load_config(
            RunConfig, OWN_DATA, [needs, "tasks.fractions={train: 0.5, validate: 0, certify: 0.25, test: 0.25}"]
        )
    assert load_config(RunConfig, OWN_DATA, [needs]).tasks.fractions["validate"] > 0


SECRET = "Xq7hunter2secretZ9"
URLS = (
    f"https://user:{SECRET}@host/path",
    f"https://{SECRET}@host/path",
    f"postgresql+psycopg://host/name?password={SECRET}",
    f"postgresql+psycopg://user:{SECRET}@host/name",
)
ADDRESS = re.compile(r"(^|_)(url|uri|address|endpoint|dsn)s?(_|$)")


SEEN: set[type[Config]] = set()


def models(annotation: Any) -> Iterator[type[Config]]:
    """Every model within an annotation, and within the fields of those; of a component all forms that have a name."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        for form in annotation.forms():
            if form not in SEEN:
                SEEN.add(form)
                yield form
                for field in form.model_fields.values():
                    yield from models(field.annotation)
    for argument in get_args(annotation):
        yield from models(argument)


def holds_text(annotation: Any) -> bool:
    return annotation is str or any(map(holds_text, get_args(annotation)))


FIELDS = sorted(
    {
        (model.__qualname__, name): (model, name)
        for root in (RunConfig, ServiceSettings, AppConfig)
        for model in models(root)
        for name, field in model.model_fields.items()
        if holds_text(field.annotation)
    }.values(),
    key=lambda each: (each[0].__qualname__, each[1]),
)


def test_trainer_finds_the_fields_that_hold_addresses() -> None:
    """Promise: the trainer finds the fields that are known to hold addresses."""
    found = {f"{model.__qualname__}.{name}" for model, name in FIELDS if ADDRESS.search(name)}
    assert found >= {"TrackingConfig.uri", "FeedbackConfig.url", "OpenAiConfig.base_url", "ClusterConfig.address"}


def outcome(model: type[Any], values: dict[str, Any]) -> str:
    """What is said of these values, or written down once they are accepted."""
    try:
        return str(redacted_values(parse_config(model, values).model_dump(mode="json")))
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda each: getattr(each, "__qualname__", each))
def test_no_field_repeats_a_secret(model: type[Any], name: str) -> None:
    for url in URLS:
        for value in (url, [url], {"key": url}):
            assert SECRET not in outcome(model, {name: value})
        if ADDRESS.search(name):  # else: make the new field a PlainUrl
            assert f"{name}: must hold no password" in outcome(model, {name: url})


@pytest.mark.parametrize(
    ("model", "name"), [each for each in FIELDS if each[1].endswith("_env")], ids=lambda each: str(each)
)
def test_a_key_in_the_place_of_a_variable_s_name_is_not_repeated(model: type[Any], name: str) -> None:
    for key in (f"sk-{SECRET}", SECRET):
        with pytest.raises(ConfigError, match="must be the name of an environment variable") as caught:
            parse_config(model, {name: key})
        assert SECRET not in str(caught.value)


UNCERTIFIED = ["update.first_threshold=1.5", "tasks.fractions={train: .9, validate: 0, certify: 0, test: .1}"]


def test_first_threshold_goes_without_certify_rows() -> None:
    """A first champion has a certificate or a threshold of its own, never both."""
    confident = "tune.gates=[confidence]"
    config = load_config(RunConfig, CONFIG, [*UPDATED, *UNCERTIFIED, confident])
    assert config.first_threshold == 1.5
    for words in (UNCERTIFIED[:1], UNCERTIFIED[1:]):
        with pytest.raises(ConfigError, match=r"set tasks\.fractions\.certify: 0"):
            load_config(RunConfig, CONFIG, [*UPDATED, "update.every_s=9", *words, confident])
    with pytest.raises(ConfigError, match=r"set tune\.gates: \[confidence\]"):
        load_config(RunConfig, CONFIG, [*UPDATED, *UNCERTIFIED, "tune.gates=[confidence, signals]"])


def test_answers_paid_elsewhere_are_found(tmp_path: Path) -> None:
    """The store of `kcm label` may be a run's; its address holds no password."""
    store = tmp_path / "paid.sqlite"
    config = load_config(RunConfig, CONFIG, [f"paid_answers={store}"])
    assert paid_answers(config) == ResponseStore.in_file(store)
    with pytest.raises(ConfigError, match="no password"):
        load_config(RunConfig, CONFIG, ["paid_answers=postgresql+psycopg://me:secret@host/paid"])
