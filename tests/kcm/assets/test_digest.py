from __future__ import annotations

import hashlib
import os

from kcm.assets.manifest import sha256_of, weights_sha256


def test_digests_are_those_of_the_content(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    assert sha256_of(file) == weights_sha256(file) == hashlib.sha256(b"abc").hexdigest()


def test_a_file_that_was_written_since_is_read_again(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    before = weights_sha256(file)
    file.write_bytes(b"abd")
    os.utime(file, ns=(1, 1))  # a clock that is set back hides no change
    assert weights_sha256(file) == sha256_of(file) != before


def test_a_file_that_was_not_written_is_read_once(tmp_path, monkeypatch):
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    before = weights_sha256(file)
    monkeypatch.setattr("kcm.assets.manifest.sha256_of", lambda path: "read again")
    assert weights_sha256(file) == before
