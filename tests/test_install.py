"""The installer tells uv what pip says, falls back on pip, and compiles what came."""

import subprocess
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from sysconfig import get_path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / ".ci" / "install"
LISTED = """\
:env:.find-links='/mnt/wheels /opt/wheels'
:env:.index-url='https://env/simple'
global.cert='/etc/ssl/certs/ca.crt'
global.constraint='/etc/pip/constraints.txt'
global.extra-index-url='\\nhttps://one\\nhttps://two'
global.index-url='https://global/simple'
user.no-color='1'
"""


@pytest.fixture
def script() -> ModuleType:
    loader = SourceFileLoader("install", str(SCRIPT))
    spec = spec_from_loader("install", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_uv_gets_indexes_wheels_and_certificates(script: ModuleType) -> None:
    assert script.as_uv_knows_them(script.parsed(LISTED)) == {
        "UV_DEFAULT_INDEX": "https://env/simple",
        "UV_INDEX": "https://one https://two",
        "UV_FIND_LINKS": "/mnt/wheels,/opt/wheels",
        "SSL_CERT_FILE": "/etc/ssl/certs/ca.crt",
    }


@pytest.mark.parametrize(
    ("uv", "fails", "used"), [(None, False, ["pip"]), ("uv", False, ["uv"]), ("uv", True, ["uv", "pip"])]
)
def test_pip_installs_what_uv_cannot_and_both_keep_to_the_constraints_and_are_compiled(
    uv: str | None, fails: bool, used: list[str], script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        if "config" in command:
            return SimpleNamespace(returncode=0, stdout=LISTED)
        called.append(command)
        return SimpleNamespace(returncode=int(fails and command[0] == "uv"))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(script, "find_uv", lambda: uv)
    monkeypatch.setenv("UV_TORCH_BACKEND", "cpu")
    assert script.main(".[test]") == 0
    compiled = called.pop()
    assert compiled[1:3] == ["-m", "compileall"]
    assert compiled[-1] == get_path("purelib")
    assert ["uv" if command[0] == "uv" else "pip" for command in called] == used
    assert all("constraints.txt" in command and ".[test]" in command for command in called)
    if uv:
        assert "/etc/pip/constraints.txt" in called[0]
