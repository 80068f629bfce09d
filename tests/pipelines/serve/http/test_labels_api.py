"""The inbox over HTTP: what was drawn is shown in its order, and what people say is in the log before they hear so."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipelines.serve.cascade.labelling import Labelling
from pipelines.serve.config import AuthConfig, FeedbackConfig, ServeConfig
from pipelines.serve.http.keys import Keys
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import LoggedDecision, Origin, Payload
from pipelines.serve.log.inbox import AskedFor, InboxLog
from pipelines.serve.log.tables import INBOX
from pipelines.serve.log.writer import LogWriter
from tests.pipelines.serve.stubs import NoMetrics

LABELS = ("bad", "good", "none of these")
NUM = 8
ASKED = AskedFor("a1", "films/2", LABELS)


@dataclass
class Drawn:
    """A service whose log holds NUM decisions, and an inbox of them in the reverse order."""

    url: str
    service: Any
    client_of: Callable[..., TestClient]

    @property
    def client(self) -> TestClient:
        return self.client_of(max_items=3)

    def rows(self) -> dict[str, tuple[str, str | None]]:
        log = DecisionLog(self.url, 30.0, "films")
        rows = {f"{row['request_id']}/{row['item']}": (row["state"], row["label"]) for row in log.read(INBOX)}
        log.close()
        return rows

    def inbox(self, application: str = "films") -> InboxLog:
        return InboxLog(self.url, 5.0, application)


def labelling(log: LogWriter | None, config: ServeConfig | None = None, metrics: Any = None) -> Labelling:
    nothing: Any = NoMetrics()
    return Labelling(nothing, config or ServeConfig(), log, metrics or nothing)


@pytest.fixture
def drawn(tmp_path: Path, service: Any, client_of: Callable[..., TestClient]) -> Iterator[Drawn]:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    log = DecisionLog(url, 30.0, "films")
    decided = [
        LoggedDecision(
            Origin(f"r{n}"),
            0,
            "films/1",
            "small",
            drawn=True,
            small_label="good",
            payload=Payload(f"text {n}", b"picture"),
        )
        for n in range(NUM)
    ]
    log.add_decisions(decided)
    for n in range(NUM):
        log.finish_audits(f"r{n}", {0: "bad"})
    log.open_inbox(ASKED)
    shared = {"item": 0, "probability": 1.0, "small_label": "good"}
    log.draw_items("a1", [shared | {"request_id": f"r{n}", "position": NUM - 1 - n} for n in range(NUM)])
    log.close()
    drawn = Drawn(url, service, client_of)
    writer = LogWriter(FeedbackConfig(timeout_s=30.0), url, application="films")
    service.labelling = labelling(writer)
    yield drawn
    writer.close()


def counts(standing: dict[str, Any]) -> tuple[int, int, int]:
    """Items that are open, labelled and skipped."""
    return standing["num_open"], standing["num_labelled"], standing["num_skipped"]


def test_open_items_come_in_the_order_in_which_they_were_drawn(drawn: Drawn) -> None:
    found = drawn.client.get("/v1/labels", params={"limit": 3}).json()
    assert (found["version"], tuple(found["labels"])) == ("films/2", LABELS)
    assert counts(found["standing"]) == (NUM, 0, 0)
    assert [each["id"] for each in found["items"]] == ["r7/0", "r6/0", "r5/0"]
    first = found["items"][0]
    assert (first["position"], first["text"], first["image"]) == (0, "text 7", "cGljdHVyZQ==")
    assert (first["small_label"], first["large_label"]) == ("good", "bad")


def test_labels_and_skips_are_in_the_log_before_they_are_acknowledged(drawn: Drawn) -> None:
    body = {"labels": [{"id": "r7/0", "label": "bad"}, {"id": "r6/0", "skip": True}]}
    for _ in range(2):  # sent again, nothing changes
        response = drawn.client.post("/v1/labels", json=body)
        assert counts(response.json()) == (NUM - 2, 1, 1)
        assert drawn.rows()["r7/0"] == ("labelled", "bad")
        assert drawn.rows()["r6/0"] == ("skipped", None)
    assert drawn.client.get("/v1/labels").json()["items"][0]["id"] == "r5/0"


@pytest.mark.parametrize(
    ("status", "item"),
    [
        (404, {"id": "r99/0", "label": "bad"}),
        (422, {"id": "r7/0", "label": "BAD"}),
        (422, {"id": "r7/0", "label": "bad", "skip": True}),
        (422, {"id": "r7", "label": "bad"}),
        (422, {"id": "r6/0", "label": "bad"}),
        (422, {"id": "r7/0", "label": "bad", "text": "more"}),
    ],
)
def test_what_was_not_asked_for_is_refused_and_nothing_is_stored(drawn: Drawn, status: int, item: Any) -> None:
    response = drawn.client.post("/v1/labels", json={"labels": [{"id": "r6/0", "label": "good"}, item]})
    assert response.status_code == status
    assert set(drawn.rows().values()) == {("drawn", None)}


def test_a_closed_inbox_asks_for_nothing_and_takes_nothing(drawn: Drawn) -> None:
    drawn.inbox("others").close_inboxes()
    assert drawn.client.get("/v1/labels").json()["version"] == "films/2"
    drawn.inbox().close_inboxes()
    found = drawn.client.get("/v1/labels").json()
    assert (found["version"], found["labels"], found["items"], counts(found["standing"])) == (None, [], [], (0, 0, 0))
    assert drawn.client.post("/v1/labels", json={"labels": [{"id": "r7/0", "label": "bad"}]}).status_code == 404
    drawn.inbox().open_inbox(ASKED)
    assert drawn.client.get("/v1/labels").json()["standing"]["num_open"] == NUM


def test_only_named_keys_may_see_what_others_have_sent(drawn: Drawn, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("".join(f"{name} {sha256(name.encode()).hexdigest()}\n" for name in ("ann", "bob")))
    writer = LogWriter(FeedbackConfig(timeout_s=30.0), drawn.url, application="films")
    drawn.service.labelling = labelling(writer, ServeConfig(auth=AuthConfig(labellers=("ann",))))
    client, body = drawn.client_of(keys=Keys(file)), {"labels": [{"id": "r7/0", "label": "bad"}]}
    for key, status in (("bob", 403), ("eve", 401), ("ann", 200)):
        headers = {"Authorization": f"Bearer {key}"}
        given = client.get("/v1/labels", headers=headers), client.post("/v1/labels", json=body, headers=headers)
        assert [each.status_code for each in given] == [status, status]
        assert ("text 7" in given[0].text) == (status == 200)
        assert (drawn.rows()["r7/0"] == ("labelled", "bad")) == (status == 200)
    writer.close()


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("localhost", 200), ("0.0.0.0", 403), ("a.b", 403)])
def test_without_keys_the_service_must_be_out_of_reach_of_others(drawn: Drawn, host: str, status: int) -> None:
    writer = LogWriter(FeedbackConfig(timeout_s=30.0), drawn.url, application="films")
    drawn.service.labelling = labelling(writer, ServeConfig(host=host))
    assert drawn.client.get("/v1/labels").status_code == status
    writer.close()


def test_a_log_that_is_gone_is_reported_and_only_what_could_not_be_stored_is_counted(
    drawn: Drawn, tmp_path: Path
) -> None:
    unstored: list[str] = []
    writer = LogWriter(FeedbackConfig(timeout_s=30.0), drawn.url, application="films")
    drawn.service.labelling = labelling(writer, metrics=SimpleNamespace(unstored=unstored.append))
    drawn.client.get("/v1/labels")
    (tmp_path / "log.db").rename(tmp_path / "away.db")
    read = drawn.client.get("/v1/labels")
    assert (read.status_code, read.json()["detail"], unstored) == (503, "the log cannot be read", [])
    told = drawn.client.post("/v1/labels", json={"labels": [{"id": "r7/0", "label": "bad"}]})
    assert (told.status_code, told.headers["retry-after"], unstored) == (503, "1", ["feedback"])
    (tmp_path / "away.db").rename(tmp_path / "log.db")
    assert drawn.rows()["r7/0"] == ("drawn", None)
    writer.close()
