"""`kcm labels` shows what callers sent without harm to a terminal."""

from rich.console import Console

from jobs.views.loop import labels_view


def test_what_callers_sent_moves_no_cursor_and_is_cut() -> None:
    """Promise: an item does nothing to a terminal but take a few lines."""
    hostile = "[red]\x1b[2J\x1b]0;owned\x07\u202e<b>\t" + "x" * 10**6
    item = {"id": "r1/0", "task": hostile, "text": hostile, "has_image": False}
    standing = {"num_labelled": 0, "num_skipped": 0, "num_open": 1, "bound": 0.1, "epsilon": 0.02, "certified": False}
    items = {"version": "7", "items": [item], "labels": ["yes"], "written": None, "standing": standing}
    console = Console(width=160, force_terminal=True)
    with console.capture() as capture:
        console.print(labels_view(items))
    text = capture.get()
    assert "[red]" in text
    assert "(1,000,0" in text
    assert len(text) < 20_000
    assert not any(part in text for part in ("\x1b[2J", "\x1b]", "\x07", "\u202e"))
