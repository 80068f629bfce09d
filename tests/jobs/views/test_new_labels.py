"""`kcm labels --new` shows what lies together among what was escalated, and what was named."""

from rich.console import Console

from jobs.views.loop import labels_view, new_labels_view

GROUP = {
    "size": 30,
    "callers": 4,
    "agreement": 0.1,
    "answers": {"balance": 20, "card_lost": 9},
    "proposal": "refund_money",
    "examples": ["where is my [refund]", "money back please"],
}


def shown(**result: object) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(new_labels_view({"named": [], "same": {}} | result))
    return capture.get()


def test_group_shows_answers_examples_and_proposed_name() -> None:
    """Promise: a group is shown with its answers examples and proposed name."""
    text = shown(groups=[GROUP], named=["travel alert"])
    for part in ("30", "balance 20, card_lost 9", "where is my [refund]", "refund_money", "travel alert"):
        assert part in text


def test_what_callers_sent_moves_no_cursor_and_is_cut() -> None:
    """Promise: neither an item nor a group of them does anything to a terminal but take a few lines."""
    hostile = "[red]\x1b[2J\x1b]0;owned\x07\u202e<b>\t" + "x" * 10**6
    item = {"id": "r1/0", "task": hostile, "text": hostile, "has_image": False}
    standing = {"num_labelled": 0, "num_skipped": 0, "num_open": 1, "bound": 0.1, "epsilon": 0.02, "certified": False}
    items = {"version": "7", "items": [item], "labels": ["yes"], "written": None, "checked": None, "standing": standing}
    for view in (
        labels_view(items),
        new_labels_view(
            {
                "named": [],
                "same": {hostile: "refund"},
                "groups": [GROUP | {"examples": [hostile]}],
            }
        ),
    ):
        console = Console(width=160, force_terminal=True)
        with console.capture() as capture:
            console.print(view)
        text = capture.get()
        assert "[red]" in text
        assert "(1,000,0" in text
        assert len(text) < 20_000
        assert not any(part in text for part in ("\x1b[2J", "\x1b]", "\x07", "\u202e"))
