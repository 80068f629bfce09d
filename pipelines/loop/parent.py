"""The champion from which an update starts: its bundle, and the artefacts from which the bundle was made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

from kcm.bundle.bundle import Bundle
from kcm.bundle.models import bundle_digest
from kcm.errors import ArtefactError
from pipelines.registry.champion import Champion
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.stages.register import BundleArtefact, Register
from pipelines.store.artefact import ArtefactStore
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.sequence import SequenceArtefact
from pipelines.training.artefacts import TunedArtefact


@dataclass(frozen=True)
class Parent:
    """A champion: the artefact of stage `register`, and the bundle in it."""

    artefact: BundleArtefact
    bundle: Bundle

    @classmethod
    def of(cls, store: ArtefactStore, champion: Champion) -> Self:
        """The parent that `champion` names.

        ArtefactError if its bundle is missing or differs.
        """
        artefact = store.named(Register.stage, champion.bundle).as_a(BundleArtefact)
        if (digest := bundle_digest(artefact.bundle)) != champion.digest:
            raise ArtefactError(
                f"the bundle of {champion.version} is another one: {digest[:12]}, not {champion.digest[:12]}",
                where=str(artefact.bundle),
                hint="Restore it, or `kcm promote` another version",
            )
        return cls(artefact, Bundle.read(artefact.bundle))

    @cached_property
    def features(self) -> FeaturesArtefact:
        """The features on which it was trained."""
        return self.artefact.source(FeaturesArtefact, "features")

    @cached_property
    def outcomes(self) -> OutcomesArtefact:
        """The large model's answers to the same rows."""
        return self.artefact.source(OutcomesArtefact, "outcomes")

    @property
    def sequence(self) -> SequenceArtefact:
        """Its task sequence."""
        return self.features.sequence

    @cached_property
    def tuned(self) -> TunedArtefact:
        """The search, or the extension of a search, that produced its networks and policy."""
        return self.artefact.source(TunedArtefact, "choose", "prompts", "tune")

    @cached_property
    def collaborator(self) -> str:
        """The name of the collaborator whose cascade is in the bundle."""
        return self.artefact.source(EvaluatedArtefact, "reevaluate", "evaluate").deployed
