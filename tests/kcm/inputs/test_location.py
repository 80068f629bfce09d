"""Files are found, opened and named alike on this machine and in an object store; a store that refuses says why."""

import gzip
import pickle
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kcm.errors import DataError
from kcm.inputs.location import Location, stem_of

Put = Callable[[str, bytes], str]


def put_here(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_a_path_and_a_uri_are_written_as_they_came(tmp_path: Path) -> None:
    assert str(Location.of(str(tmp_path / "a b"))) == str(tmp_path / "a b")
    found = Location.of("s3://bucket/größe/part-?.csv?endpoint_override=http://host:1")
    assert (str(found), found.path) == ("s3://bucket/größe/part-?.csv", "bucket/größe/part-?.csv")
    assert found.store == "s3://bucket?endpoint_override=http://host:1"
    with pytest.raises(DataError, match=r"cannot read from ftp://.*s3:// or gs://"):
        Location.of("ftp://host/x.csv")


@pytest.mark.parametrize(
    ("name", "suffix", "stem"),
    [("a.CSV", ".csv", "a"), ("b/a.jsonl.gz", ".jsonl", "b/a"), ("a.b.csv", ".csv", "a.b"), ("a.gz", "", "a")],
)
def test_the_suffix_is_that_of_what_is_compressed(name: str, suffix: str, stem: str) -> None:
    assert Location.of(f"/{name}").suffix == suffix
    assert stem_of(name) == stem


def test_a_folder_gives_its_files_in_order_without_hidden_ones(tmp_path: Path) -> None:
    put_here(tmp_path, "b.csv", "a-b/x.csv", "a/x.csv", "_SUCCESS", ".part", "a/_log/0.json")
    here = Location.of(tmp_path)
    assert [file.relative for file in here.files(recursive=True)] == ["a/x.csv", "a-b/x.csv", "b.csv"]
    assert [file.relative for file in here.files(recursive=False)] == ["b.csv"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.csv", ["b.csv"]),
        ("*/*.csv", ["a/x.csv"]),
        ("**/*.csv", ["a/b/y.csv", "a/x.csv", "b.csv"]),
        ("a/**/*.csv", ["b/y.csv", "x.csv"]),
        ("a/**", ["b/y.csv", "x.csv"]),
        ("[ab].*", ["b.csv", "b.tsv"]),
        ("none/*.csv", []),
    ],
)
def test_a_pattern_gives_the_files_that_match(tmp_path: Path, pattern: str, found: list[str]) -> None:
    put_here(tmp_path, "b.csv", "b.tsv", "a/x.csv", "a/b/y.csv")
    assert [file.relative for file in Location.of(str(tmp_path / pattern)).glob()] == found


def test_objects_are_read_like_files_even_after_pickling(put_anywhere: Put) -> None:
    put_anywhere("a b/größe/2.csv", b"two")
    uri = put_anywhere("a b/größe/1.txt.gz", gzip.compress(b"one"))
    folder = Location.of(uri.replace("/1.txt.gz", ""))
    assert [(file.relative, file.size > 0) for file in folder.files(recursive=False)] == [
        ("1.txt.gz", True),
        ("2.csv", True),
    ]
    here = pickle.loads(pickle.dumps(Location.of(uri)))
    assert (str(here), here.suffix, here.open().read()) == (uri.partition("?")[0], ".txt", b"one")
    assert [file.relative for file in Location.of(uri.replace("1.txt.gz", "*.csv")).glob()] == ["2.csv"]


def test_an_object_has_another_stamp_when_it_has_another_content(put_anywhere: Put) -> None:
    first = Location.of(put_anywhere("rows.csv", b"abc")).stamp()
    assert first is not None
    assert Location.of(put_anywhere("rows.csv", b"abd")).stamp() != first
    assert Location.of(put_anywhere("rows.csv", b"abc")).stamp() == first


def test_the_server_may_be_that_of_the_environment(put: Put, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put("env.csv", b"x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    assert Location.of("s3://rows/env.csv").open().read() == b"x"


def test_a_bucket_that_does_not_exist_is_named(s3_server: str, google_server: str) -> None:
    for scheme, server in (("s3", s3_server), ("gs", f"{google_server}&anonymous=true")):
        with pytest.raises(DataError, match=rf"the bucket 'absent' does not exist \({scheme}://absent/x\.csv\)"):
            Location.of(f"{scheme}://absent/x.csv?endpoint_override={server}").kind()


def test_a_store_that_does_not_answer_is_named() -> None:
    with pytest.raises(DataError, match=r"the store does not answer \(s3://rows/x\.csv\)"):
        Location.of("s3://rows/x.csv?endpoint_override=http://127.0.0.1:1").kind()


@pytest.fixture
def refusing() -> Iterator[Callable[[int, str], str]]:
    """`refusing(status, code)` is the URL of a server that answers everything with that error of S3."""
    answer = {"status": 0, "body": b""}

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer["status"])
            self.send_header("Content-Length", str(len(answer["body"])))
            self.end_headers()
            self.wfile.write(answer["body"])

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def refuse(status: int, code: str) -> str:
        answer.update(status=status, body=f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())
        return f"http://127.0.0.1:{server.server_port}"

    yield refuse
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "AccessDenied", r"no permission to read it \(s3://rows/deep\).*credentials"),
        (403, "InvalidAccessKeyId", r"no permission to read it"),
        (400, "ExpiredToken", r"credentials have expired.*start again: finished work is kept"),
    ],
)
def test_a_store_that_refuses_says_what_to_do(
    refusing: Callable[[int, str], str], s3_server: str, status: int, code: str, message: str
) -> None:
    folder = Location.of(f"s3://rows/deep?endpoint_override={refusing(status, code)}")
    with pytest.raises(DataError, match=message):
        folder.files(recursive=False)
