"""Stage `register`: the first collaborator's cascade as a bundle, with the report, in the model registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kcm.bundle.bundle import Bundle, Lineage
from kcm.cascade.policy import Policy
from kcm.certify.certificate import Certificate
from kcm.large import LinearHead
from pipelines.context import Context
from pipelines.progress import Bar
from pipelines.stages.evaluate import read_curves, read_result
from pipelines.stages.outcomes import HEAD, IDENTITY
from pipelines.store.artefact import Artefact, Recipe
from pipelines.training.tuned import Tuned
from pipelines.training.worker import WalkPlan

VERSION = 3
BUNDLE = "bundle"


def register(
    context: Context,
    plan: WalkPlan,
    answer_names: tuple[str, ...],
    inputs: tuple[Artefact, Artefact, Artefact, Artefact],
) -> Artefact:
    """The bundle, in the store and as the champion of the registry; registered once, however often it is run.

    `inputs` are the artefacts of features, outcomes, tune (or prompts) and evaluate.
    """
    recipe = Recipe("register", VERSION, {"name": context.config.name}, inputs)

    def write(folder: Path, scratch: Path, bar: Bar) -> None:
        make_bundle(context, plan, answer_names, inputs).write(folder / BUNDLE)

    artefact = context.build(recipe, write, unit="bundles")
    if context.tracking:
        model = context.config.tracking.model_of(context.config.name)
        context.tracking.publish(model, artefact.folder / BUNDLE, artefact.fingerprint)
    return artefact


def make_bundle(
    context: Context,
    plan: WalkPlan,
    answer_names: tuple[str, ...],
    inputs: tuple[Artefact, Artefact, Artefact, Artefact],
) -> Bundle:
    """The bundle of the first collaborator."""
    encoded, answered, tuned, evaluated = inputs
    name, config = plan.collaborators[0], context.config
    found = Tuned.load(tuned.folder / name, plan, name)
    head = answered.folder / HEAD
    return Bundle(
        collaborator=found.collaborator,
        seed=plan.seed,
        label_names=answer_names[: plan.num_labels],
        none_label=next(iter(answer_names[plan.num_labels :]), None),
        task_names=tuple(task.name for task in plan.tasks),
        encoder=config.encoder,
        encoder_identity=encoded.manifest["section"]["identity"],
        large=config.large,
        large_identity=_json(answered.folder / IDENTITY)["identity"],
        policy=Policy.model_validate(_json(evaluated.folder / name / "policy.json")),
        learner=config.learner,
        large_head=LinearHead.load(head) if head.exists() else None,
        deferral=found.gate.deferral,
        prompts=found.prompts if found.policy.prompt != "none" else None,
        certificates=_certificates(_json(evaluated.folder / name / "certificates.json")),
        metrics=read_result(evaluated)[name] | {"frontier": read_curves(evaluated)[name]["frontier"]},
        learner_state=found.state["learner"],
        lineage=Lineage(artefacts={artefact.stage: artefact.fingerprint for artefact in inputs}),
    )


def _certificates(stored: dict[str, Any]) -> dict[str | None, Certificate]:
    tasks = stored.pop("tasks")
    own = {task: Certificate.model_validate(each) for task, each in tasks.items()}
    return {None: Certificate.model_validate(stored)} | own


def _json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
