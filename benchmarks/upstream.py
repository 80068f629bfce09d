"""A server of chat completions that gives what a function says.

python -m benchmarks.upstream PORT     # a large model that reads the answer in the text, and prints each question
"""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Reply = tuple[int, dict[str, str], bytes]  # status, headers and body


def labelled(name: str) -> Reply:
    """An answer by a label."""
    choice = {"message": {"role": "assistant", "content": json.dumps({"label": name})}}
    return 200, {}, json.dumps({"choices": [choice], "usage": {}}).encode()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # the default of 5 loses connections that arrive together, and the client would be blamed
    daemon_threads = True


@contextmanager
def upstream(reply: Callable[[str], Reply], host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The server's address within the block; `reply` is given the JSON of a question."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, headers, body = reply(self.rfile.read(int(self.headers["Content-Length"])).decode())
            try:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
            except OSError:  # it was not waited for
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with _Server((host, port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{host}:{server.server_port}/v1"
        server.shutdown()


def told(question: str) -> Reply:
    """The label that the text of a question names; it takes a while, as if it were paid for."""
    about = re.search(r"row \d+ is about (\w+)", question)
    print(json.loads(question)["model"], about and about[0], flush=True)
    time.sleep(0.05)
    return labelled(about[1] if about else "other")


if __name__ == "__main__":
    with upstream(told, "0.0.0.0", int(sys.argv[1])):
        signal.pause()
