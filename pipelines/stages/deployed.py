"""The choice of the deployed collaborator, on the rows that choose its policy, so that it costs no delta."""

from __future__ import annotations

from kcm.certification.forecast import CertificateForecast
from kcm.report.reading import NAMES
from kcm.report.summary import forecast_words
from pipelines.training.artefacts import TunedArtefact, is_better, standing


def chosen(tuned: TunedArtefact, choose: bool, *, updated: bool = False) -> tuple[list[str], str]:
    """The collaborators, the one to deploy first, and the reason; without `choose` in the order of the configuration.

    In a cascade that will be `updated`, collaborators that notice new classes come first. KCM, which explains itself,
    is deployed unless another collaborator is better by more than two points and a standard error.
    """
    names: list[str] = list(tuned.plan.config.collaborators)
    called = {str(name): words for name, words in NAMES.items()}
    if not choose or len(names) == 1:
        return names, f"{called[names[0]]} is deployed because the configuration names it first"
    reached = {name: tuned.objectives(name) for name in names}
    notices = {name: updated and tuned.load(name).novel is not None for name in names}
    ranked = sorted(names, key=lambda name: (notices[name], standing(reached[name], tuned.goal)), reverse=True)
    rivals = [name for name in ranked if notices[name] == notices[ranked[0]]]
    better: set[str] = set()
    if "kcm" in rivals[1:]:
        better = {name for name in rivals if is_better(reached[name], reached["kcm"], tuned.goal)}
        ranked.sort(key=lambda name: name not in (better or ("kcm",)))
        if not better:
            level = "none of the others is better by two points and a standard error on the rows that choose"
            return ranked, f"{called['kcm']} is deployed because {level}; choosing so costs nothing of delta"
    best, other = ranked[0], "kcm" if better else ranked[1]
    deployed = f"{called[best]} is deployed because"
    if notices[best] and not notices[other]:
        return ranked, f"{deployed} it alone notices classes that are new, which an update has to learn"
    if tuned.goal == "accuracy":
        first, second = (f"{reached[name]['forecast_accuracy']:.1%}" for name in (best, other))
        why = f"the certified cascade is forecast to be right on {first} with it"
    else:
        first, second = (forecast_words(CertificateForecast.of(reached[name]).summary) for name in (best, other))
        why = f"a certificate is forecast to leave {first} of the inputs to it"
    why += f", against {second} with {called[other]}"
    return ranked, f"{deployed} on the rows that choose {why}; choosing so costs nothing of delta"
