"""What a person finds in MLflow's own page: the run's figures and parameters, and the champion with its description.

Pictures of it are left in `build/mlflow`. It is run where KCM_TEST_BROWSER=1; see `collect_ignore` in conftest.py.
"""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from playwright.sync_api import expect, sync_playwright

from kcm.bundle.bundle import Bundle
from tests.integration.page.test_page import CHROMIUM, FLAGS
from tests.integration.registry.mlflow_registry import mlflow_process, registry_of
from tests.kcm.bundle.test_runtime import loadable

__all__ = ["loadable"]  # a fixture

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PICTURES = Path(__file__).parents[3] / "build" / "mlflow"
PATIENCE_MS = 60_000


def test_the_run_and_the_champion_are_shown(loadable: tuple[Bundle, Path], tmp_path: Path) -> None:
    bundle, _ = loadable
    uri = registry_of(bundle, tmp_path)
    version = MlflowClient(uri).get_model_version_by_alias("reviews", "champion")
    run = MlflowClient(uri).get_run(version.run_id)
    run_page = f"/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    PICTURES.mkdir(parents=True, exist_ok=True)
    ui = ("server", "--backend-store-uri", uri, "--workers", "1")
    with mlflow_process(*ui, uri=uri, ready="/health", folder=tmp_path) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)

        page.goto(f"{url}/#/models/reviews/versions/1")
        for text in ("champion", "the large model answers everything", "bundle_digest"):
            expect(page.get_by_text(text).first).to_be_visible()
        expect(page.locator(f"a[href*='{run_page}']").first).to_be_visible()  # the run that registered it
        page.screenshot(path=PICTURES / "version.png")

        page.goto(f"{url}/#{run_page}")
        for text in ("kcm/calls_saved", "0.527", "train.learning_rate", "0.001"):
            expect(page.get_by_text(text, exact=True).first).to_be_visible()
        page.screenshot(path=PICTURES / "run.png")
        browser.close()
