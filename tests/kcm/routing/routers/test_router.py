"""A fitted router is the same after writing and reading, and never certifies on rows it was fitted on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kcm.errors import ArtefactError, DataError
from kcm.routing.config import RouteColumns
from kcm.routing.inputs import router_inputs
from kcm.routing.router import FittedRouter, RouterConfig
from kcm.routing.table import RoutingTable, read_table

COLUMNS = RouteColumns(small_correct="s", large_correct="l", text="t", confidence="c")


@pytest.fixture
def table(table_file: Callable[..., Path]) -> RoutingTable:
    rng = np.random.default_rng(0)
    confidence = rng.random(120)
    path = table_file(
        s=(rng.random(120) < confidence).astype(int),
        l=[1] * 120,
        c=confidence,
        t=[f"item {n} of {n % 7}" for n in range(120)],
    )
    return read_table(path, COLUMNS)


def fit(table: RoutingTable) -> FittedRouter:
    inputs = router_inputs(table, None, is_confidence=True)
    known = {"categories": (), "encoder": None, "encoder_identity": None, "widths": inputs.widths}
    return FittedRouter.fit(table, inputs, RouterConfig(columns=COLUMNS, seed=0, **known))


def test_a_router_read_again_scores_alike(table: RoutingTable, tmp_path: Path) -> None:
    router = fit(table.select(np.arange(80)))
    router.write(tmp_path / "router")
    again = FittedRouter.read(tmp_path / "router")
    assert again.config == router.config
    inputs = router_inputs(table, None, is_confidence=True)
    np.testing.assert_array_equal(again.scores(table, inputs), router.scores(table, inputs))
    assert not list((tmp_path / "router").rglob("*.p*kl*"))


def test_fitted_rows_keep_out_of_fold_scores_anywhere(table: RoutingTable) -> None:
    """Promise: fitted rows keep their out of fold scores wherever they stand."""
    router = fit(table.select(np.arange(80)))
    shuffled = table.select(np.random.default_rng(1).permutation(120))
    inputs = router_inputs(shuffled, None, is_confidence=True)
    fitted = np.isin(shuffled.item, table.item[:80])
    scores, estimate = router.scores(shuffled, inputs), router.model.estimate(inputs)
    assert (scores[fitted] != estimate[fitted]).all()
    np.testing.assert_array_equal(scores[~fitted], estimate[~fitted])


def test_fitted_rows_may_not_certify(table: RoutingTable) -> None:
    router = fit(table.select(np.arange(80)))
    router.refuse_fitted(table.select(np.arange(80, 120)), "certify")
    with pytest.raises(DataError, match=r"1 certify rows are among those .* the first is row 80"):
        router.refuse_fitted(table.select(np.arange(79, 120)), "certify")


def test_what_is_no_router_is_refused(table: RoutingTable, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no router here"):
        FittedRouter.read(tmp_path)
    fit(table).write(tmp_path / "router")
    with pytest.raises(ArtefactError, match="the folder exists already"):
        fit(table).write(tmp_path / "router")
    (tmp_path / "router" / "model.safetensors").write_bytes(b"changed")
    with pytest.raises(ArtefactError, match="differs from its manifest"):
        FittedRouter.read(tmp_path / "router")
