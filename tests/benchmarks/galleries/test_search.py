"""The search for a retrieval policy keeps within what it is given, and answers as its choice says."""

from __future__ import annotations

import pytest

from benchmarks.galleries.search import RetrievalConfig, Shortlist, candidates, cheapest, queries, within_share
from kcm.certify.certificate import CertificateConfig
from kcm.errors import DataError

CONFIG = RetrievalConfig(top_k=(2, 5))


def test_the_search_keeps_within_its_share_and_its_loss(galleries):
    tried = candidates(galleries, CONFIG, ("confidence", "deferral"), seed=0)
    assert len(tried) == 4 * 2
    best, policy = cheapest(tried, 0.05, CertificateConfig(epsilon=0.3))
    assert policy.prompt == best.choice.mode != "none"
    bounded, decision = within_share(tried, 0.01)
    assert float((~decision.keep(bounded.rows.score)).mean()) * bounded.share <= 0.01


def test_a_list_longer_than_a_gallery_is_refused(galleries):
    with pytest.raises(DataError, match="top_k = 100, but a gallery of task 't' has 60 items"):
        candidates(galleries, RetrievalConfig(top_k=(100,)), ("confidence",), seed=0)


def test_a_choice_is_what_its_queries_are_answered_with(galleries):
    table = queries(galleries, "validate", Shortlist(5, "soft", 1.0))
    assert set(table.split) == {"validate"}
    assert set(table.prompt) == {"soft"}
