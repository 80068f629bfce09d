"""The choice of the deployed collaborator, on the rows that choose its policy, so that it costs no delta."""

from __future__ import annotations

from kcm.certification.forecast import CertificateForecast
from kcm.report.reading import NAMES
from kcm.report.summary import forecast_words
from pipelines.training.artefacts import RANKINGS, TunedArtefact, is_better, standing


def chosen(tuned: TunedArtefact, choose: bool, *, updated: bool = False) -> tuple[list[str], str]:
    """The collaborators, the one to deploy first, and the reason; without `choose` in the order of the configuration.

    In a cascade that will be `updated`, collaborators that notice new classes come first. KCM, which explains itself,
    is deployed unless another collaborator is better by more than a point and a standard error.
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
            level = "none of the others is better by a point and a standard error on the rows that choose"
            return ranked, f"{called['kcm']} is deployed because {level}; choosing so costs nothing of delta"
    best, other = ranked[0], "kcm" if better else ranked[1]
    deployed = f"{called[best]} is deployed because"
    if notices[best] and not notices[other]:
        return ranked, f"{deployed} it alone notices classes that are new, which an update has to learn"
    if notices[best] and not all(notices.values()):
        deployed += " of those that notice classes which are new, which an update has to learn, it comes first:"
    differs = (objective for objective in RANKINGS[tuned.goal] if reached[best][objective] != reached[other][objective])
    objective = RANKINGS[tuned.goal][0] if better else next(differs, None)
    if objective is None:
        return ranked, f"{deployed} it comes first: on the rows that choose, both are worth the same"
    accuracies = (f"{reached[name]['forecast_accuracy']:.1%}" for name in (best, other))
    shares = (forecast_words(CertificateForecast.of(reached[name]).summary) for name in (best, other))
    words = {
        "forecast_accuracy": "the certified cascade is forecast to be right on {} with it, against {} with {}",
        "forecast": "a certificate is forecast to leave {} of the inputs to it, against {} with {}",
        "calls_saved": "the forecasts are level ({} and {} with {}), and its search keeps more of these rows",
        "area": "the forecasts are level ({} and {} with {}), and the area under its frontier is larger",
    }[objective].format(*(accuracies if objective == "forecast_accuracy" else shares), called[other])
    return ranked, f"{deployed} on the rows that choose {words}; choosing so costs nothing of delta"
