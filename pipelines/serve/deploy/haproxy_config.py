"""What HAProxy's configuration must be before HAProxy may start; run as a program on what Ray has just written.

It imports nothing but the standard library: it runs at every start and every reload of HAProxy.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CLIENT_HEADERS = ("x-request-timeout-seconds", "x-request-disconnect-disabled")  # 0 and ?1 keep a place for ever
CLIENT_TIMEOUT_S = 30  # that a client may be silent in the middle of a request; not while it waits for its answer
REQUEST_TIMEOUT_S = 15  # in which its headers must be there, and its body as far as HAProxy's buffer holds it

_FRONTEND = "frontend http_frontend"
_TIMEOUTS = {
    "timeout client": f"timeout client {CLIENT_TIMEOUT_S}s",
    "timeout http-request": f"timeout http-request {REQUEST_TIMEOUT_S}s",
}
_OPTIONS = ("option http-buffer-request",)  # no door takes a request whose beginning only trickles in
_DELETIONS = tuple(f"http-request del-header {name}" for name in CLIENT_HEADERS)
_OWN = frozenset({*_TIMEOUTS.values(), *_OPTIONS, *_DELETIONS})
_SECTION = re.compile(r"^(?:global|defaults|frontend|backend|listen)\b.*$", re.MULTILINE)


class UnknownTemplateError(ValueError):
    """Ray's configuration is not the one that this module knows how to put right."""


def hardened(config: str, folder: Path) -> str:
    """The configuration without what opens ports to everybody or keeps from a client what it should know.

    `folder` takes the sockets of statistics and metrics. Applied to its own result, it changes nothing. Raises
    UnknownTemplateError where the result is not what it must be, as with another version of Ray.
    """
    sections = [_mended(section, folder) for section in _sections(config)]
    _require(sections, folder)
    return "".join(sections)


def _sections(config: str) -> list[str]:
    starts = [match.start() for match in _SECTION.finditer(config)]
    if not starts or config[: starts[0]].strip():
        raise UnknownTemplateError("it does not begin with a section")
    return [config[start:end] for start, end in zip(starts, [*starts[1:], len(config)], strict=True)]


def _mended(section: str, folder: Path) -> str:
    head, *lines = section.splitlines()
    kept = [
        line for line in lines if line.strip() not in _OWN and not line.strip().startswith(("errorfile ", *_TIMEOUTS))
    ]
    kept = [line for line in kept if line.strip() != "option splice-request"]
    match head.strip():
        case "global":
            kept = [line.replace("mode 666 level admin", "mode 600 level admin") for line in kept]
        case "defaults":
            kept += [f"    {line}" for line in (*_TIMEOUTS.values(), *_OPTIONS)]
        case "frontend prometheus":
            kept = [re.sub(r"bind .*", f"bind {_socket(folder, 'metrics')}", line) for line in kept]
        case "listen stats":
            kept = [re.sub(r"bind .*", f"bind {_socket(folder, 'stats')}", line) for line in kept]
        case head_of_http if head_of_http == _FRONTEND:
            kept = [*[f"    {line}" for line in _DELETIONS], *kept]
    return "\n".join([head, *kept]) + "\n"


def _socket(folder: Path, name: str) -> str:
    return f"unix@{folder}/{name}-page.sock mode 600"


def _require(sections: list[str], folder: Path) -> None:
    """Check the result alone: HAProxy reads nothing else."""
    lines_of = {
        section.splitlines()[0].strip(): [line.strip() for line in section.splitlines()] for section in sections
    }
    opening = {head: lines for head, lines in lines_of.items() if head.startswith(("frontend ", "listen "))}
    if len(lines_of) != len(sections) or opening.keys() != {"frontend prometheus", _FRONTEND, "listen stats"}:
        raise UnknownTemplateError(f"it listens in {sorted(opening)}")
    binds = {head: [line for line in lines if line.startswith("bind ")] for head, lines in lines_of.items()}
    own = {"frontend prometheus": "metrics", "listen stats": "stats"}
    for head, found in binds.items():
        if head in own and found != [f"bind {_socket(folder, own[head])}"]:
            raise UnknownTemplateError(f"{head} listens on {found}")
        if len(found) != (head in opening):
            raise UnknownTemplateError(f"{head} listens on {found}")
    for line in lines_of.get("global", []):
        if line.startswith("stats socket") and " mode 600 " not in line:
            raise UnknownTemplateError(f"another may administrate it: {line}")
    wanted = {"defaults": (*_TIMEOUTS.values(), *_OPTIONS), _FRONTEND: _DELETIONS}
    for head, needed in wanted.items():
        missing = [line for line in needed if line not in lines_of.get(head, [])]
        if missing:
            raise UnknownTemplateError(f"{head} lacks {missing}")


def main(folder: str, file: str) -> None:
    """Put a file right; ends the program with a reason where that cannot be done."""
    path = Path(file)
    try:
        path.write_text(hardened(path.read_text(encoding="utf-8"), Path(folder)), encoding="utf-8")
    except UnknownTemplateError as error:
        sys.exit(f"HAProxy is not started: this Ray configures it in a way that is not known here: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
