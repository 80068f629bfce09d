"""What is counted, what the dashboard shows of it, and how the nodes' pages become one."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.serve.metrics import NAMES, Exposition, merged

DASHBOARD = Path(__file__).parents[3] / "deploy" / "helm" / "kcm" / "dashboard.json"

PAGE = """# HELP ray_kcm_items_total Items "answered".
# TYPE ray_kcm_items_total counter
ray_kcm_items_total{{route="small",version="films/1",NodeAddress="{node}"}} 3.0
# HELP ray_kcm_stage_seconds Seconds.
# TYPE ray_kcm_stage_seconds histogram
ray_kcm_stage_seconds_bucket{{stage="judge",le="0.1",NodeAddress="{node}"}} 2.0
ray_kcm_stage_seconds_bucket{{stage="judge",le="+Inf",NodeAddress="{node}"}} 3.0
ray_kcm_stage_seconds_count{{stage="judge",NodeAddress="{node}"}} 3.0
ray_kcm_stage_seconds_sum{{stage="judge",NodeAddress="{node}"}} 0.25
# HELP ray_node_cpu Not ours.
# TYPE ray_node_cpu gauge
ray_node_cpu{{NodeAddress="{node}"}} 2.0
"""


def test_the_pages_of_the_nodes_become_one_with_our_families_alone() -> None:
    text = merged([PAGE.format(node="a"), "", PAGE.format(node="b")])
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families.keys() == {"ray_kcm_items", "ray_kcm_stage_seconds"}
    items = families["ray_kcm_items"]
    assert (items.type, items.documentation) == ("counter", 'Items "answered".')
    assert {sample.labels["NodeAddress"]: sample.value for sample in items.samples} == {"a": 3.0, "b": 3.0}
    assert len(families["ray_kcm_stage_seconds"].samples) == 8
    assert text.count("# TYPE") == 2


def test_a_label_that_needs_escaping_survives() -> None:
    page = '# TYPE ray_kcm_x gauge\nray_kcm_x{a="back\\\\slash \\"quote\\""} 1.0\n'
    (family,) = text_string_to_metric_families(merged([page]))
    assert family.samples[0].labels == {"a": 'back\\slash "quote"'}


def test_however_many_ask_nodes_are_asked_once_and_by_threads_of_their_own() -> None:
    """Promise: a silent node keeps waiting whoever asks for metrics, and nothing else."""
    now, asked, silent = [0.0], [], threading.Event()

    def pages() -> list[str]:
        asked.append(threading.current_thread().name)
        assert silent.wait(30)
        return [PAGE.format(node=len(asked))]

    async def many() -> list[str]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        exposition = Exposition(pages, fresh_s=2.0, clock=lambda: now[0])
        scrapes = [asyncio.create_task(exposition()) for _ in range(60)]
        for _ in range(30):
            assert await asyncio.to_thread(lambda: "an item") == "an item"  # by the executor that encodes
        scrapes[0].cancel()  # a client that leaves takes nothing from the others
        now[0] = 100.0
        late = asyncio.create_task(exposition())  # the nodes are still being asked
        await asyncio.sleep(0)
        silent.set()
        found = set(await asyncio.gather(*scrapes[1:], late))
        assert len(asked) == 1
        found.add(await exposition())
        assert len(asked) == 2
        now[0] = 101.9
        found.add(await exposition())
        assert len(asked) == 2
        return sorted(found)

    first, second = asyncio.run(many())
    assert ('NodeAddress="1"' in first, 'NodeAddress="2"' in second) == (True, True)
    assert all(name.startswith("exposition") for name in asked)


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return loaded


def test_every_metric_is_on_the_dashboard_and_nothing_else(dashboard: dict[str, Any]) -> None:
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = {
        re.sub(r"_(bucket|sum|count)$", "", name) for query in queries for name in re.findall(r"ray_(kcm_\w+)", query)
    }
    assert shown == set(NAMES)


def test_panels_have_titles_sources_and_places_of_their_own(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert dashboard["templating"]["list"][0]["name"] == "datasource"
    taken = [
        (panel["gridPos"]["x"] + dx, panel["gridPos"]["y"] + dy)
        for panel in panels
        for dx in range(panel["gridPos"]["w"])
        for dy in range(panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24
