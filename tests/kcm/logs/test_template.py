"""A template recognises its own requests, returns the text in them, and no other request."""

from __future__ import annotations

import pytest

from kcm.logs.template import Message, Template

SYSTEM = {"role": "system", "content": "Name the queue: billing or login."}
TEMPLATE = Template(
    messages=(Message(**SYSTEM),), before="Ticket: ", after="\nQueue:", replies={"billing": "Queue: billing"}
)


def test_text_between_the_fixed_parts() -> None:
    request = [SYSTEM, {"role": "user", "content": "Ticket: I paid twice\nQueue:"}]
    assert TEMPLATE.text(request) == "I paid twice"


@pytest.mark.parametrize(
    "request_",
    [
        [],
        [SYSTEM],
        [{"role": "user", "content": "Ticket: I paid twice\nQueue:"}],
        [SYSTEM | {"content": "Name the team."}, {"role": "user", "content": "Ticket: I paid twice\nQueue:"}],
        [SYSTEM, {"role": "user", "content": "I paid twice\nQueue:"}],
        [SYSTEM, {"role": "user", "content": "Ticket: I paid twice"}],
        [SYSTEM, {"role": "assistant", "content": "Ticket: I paid twice\nQueue:"}],
        [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "Ticket: I paid twice\nQueue:"}]}],
        [SYSTEM, SYSTEM, {"role": "user", "content": "Ticket: I paid twice\nQueue:"}],
    ],
)
def test_another_request_has_no_text(request_: list[dict[str, object]]) -> None:
    assert TEMPLATE.text(request_) is None


def test_fixed_parts_never_overlap() -> None:
    """A message shorter than `before` and `after` together is not of the template, even if it starts and ends right."""
    template = Template(before="ab", after="ba")
    assert template.text([{"role": "user", "content": "aba"}]) is None
    assert template.text([{"role": "user", "content": "abba"}]) == ""


def test_reply_falls_back_to_the_label() -> None:
    assert (TEMPLATE.reply("billing"), TEMPLATE.reply("login")) == ("Queue: billing", "login")
