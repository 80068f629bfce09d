"""Whether a control should do better than the deployed collaborator, by the rows that choose their policies."""

from __future__ import annotations

from kcm.certification.forecast import CertificateForecast
from kcm.report.reading import called
from kcm.report.summary import forecast_words
from pipelines.training.artefacts import TunedArtefact, is_better, standing


def better_control(tuned: TunedArtefact) -> str | None:
    """A sentence on the best control whose forecast is better by a standard error; None if there is no such control."""
    deployed, *controls = tuned.plan.config.collaborators
    reached = {name: tuned.objectives(name) for name in (deployed, *controls)}
    better = [name for name in controls if is_better(reached[name], reached[deployed], tuned.goal)]
    if not better:
        return None
    best = max(better, key=lambda name: standing(reached[name], tuned.goal))
    names = (called(side.name, side.form) for side in (tuned.load(name).collaborator for name in (best, deployed)))
    if tuned.goal == "accuracy":
        what = "the certified cascade should be right on"
        figures = (f"{reached[name]['forecast_accuracy']:.1%}" for name in (best, deployed))
    else:
        what = "a certificate should leave it"
        figures = (forecast_words(CertificateForecast.of(reached[name]).summary) for name in (best, deployed))
    (first, second), (of_first, of_second) = names, figures
    return (
        f"{first} is better than {second} by more than a standard error: {what} {of_first} of the inputs, against"
        f" {of_second}. `collaborators: [{best}, {deployed}]` deploys it"
    )
