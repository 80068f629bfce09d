"""The exit of a command: its code, one error line on stderr, and its result as JSON."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from kcm.errors import KcmError
from kcm.inputs.visible import shown
from kcm.redact import redacted, redacted_values

_KCM_ERROR = re.compile(r"^\s*kcm\.errors\.\w+: (.+)$", re.MULTILINE)
UNEXPECTED, USER_ERROR, OUTSIDE_PROMISE, INTERRUPTED, TERMINATED = 1, 2, 3, 130, 143
NOTHING_BOUGHT = 4  # of `kcm label`: no answer could be bought


class OutsidePromise(Exception):
    """The end of a command whose `result` is written but breaks its promise; the message is one line."""

    def __init__(self, line: str, result: dict[str, Any], code: int = OUTSIDE_PROMISE) -> None:
        super().__init__(line)
        self.result, self.code = result, code


@contextmanager
def reported(json_file: Path | None, debug: bool) -> Iterator[dict[str, Any]]:
    """Run the body of a command; the yielded dict is its JSON result.

    Exit codes: 2 for a user error (KcmError), 1 for any other error, 3 or 4 for an OutsidePromise, 130 for an
    interruption, 143 for a SIGTERM. Each prints one line on stderr, after the traceback if `debug`. The JSON file is
    written in every case; the file of a killed command says that it did not finish.
    """
    result: dict[str, Any] = {}
    terminated = threading.Event()
    try:
        write_result(json_file, {"error": "the command did not finish"})
        with _terminable(terminated):
            yield result
        write_result(json_file, result)
    except typer.Exit:
        raise
    except OutsidePromise as end:
        write_result(json_file, end.result)
        typer.secho(shown(str(end)), fg=typer.colors.YELLOW, err=True)
        raise typer.Exit(end.code) from None
    except KeyboardInterrupt as interruption:
        code = TERMINATED if terminated.is_set() else INTERRUPTED
        _fail(str(interruption) or "interrupted; start again", code, json_file, debug)
    except SystemExit:  # Ray's own signal handlers exit this way
        _fail("interrupted; start again", INTERRUPTED, json_file, debug)
    except Exception as error:
        if text := _user_error(error):
            _fail(f"error: {text}", USER_ERROR, json_file, debug)
        hint = "" if debug else " (--debug for the traceback)"
        _fail(f"error: unexpected {type(error).__name__}: {error}{hint}", UNEXPECTED, json_file, debug)


@contextmanager
def _terminable(terminated: threading.Event) -> Iterator[None]:
    """Let the first SIGTERM interrupt the block like Ctrl-C; later ones are ignored, so clean-up finishes.

    A SIGTERM sets `terminated`. An exception type could not carry this: Ray's C++ side replaces exceptions of a handler
    by a KeyboardInterrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        terminated.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _user_error(error: Exception) -> str | None:
    """The message of a KcmError, also from another process of Ray; None for other errors.

    Ray Data keeps only the traceback of a worker's exception, as text.
    """
    cause = getattr(error, "cause", error)
    if isinstance(cause, KcmError):
        return str(cause)
    messages = _KCM_ERROR.findall(str(error))
    return messages[-1] if messages else None


def _fail(text: str, code: int, json_file: Path | None, debug: bool) -> None:
    if debug:
        print(redacted(traceback.format_exc()), file=sys.stderr)
    line = redacted(shown(" ".join(text.split())))
    typer.secho(line, fg=typer.colors.RED, err=True)
    with suppress(KcmError):  # the error may concern this file
        write_result(json_file, {"error": line.removeprefix("error: ")})
    raise typer.Exit(code) from None


def write_result(json_file: Path | None, result: dict[str, Any]) -> None:
    """Write a result as JSON, without secrets; without a file nothing. Raises KcmError if it cannot be written."""
    if json_file is None:
        return
    try:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(redacted_values(result), indent=2, default=str) + "\n", encoding="utf-8")
    except OSError as error:
        raise KcmError(f"cannot write the JSON result: {error.strerror}", where=str(json_file)) from error
