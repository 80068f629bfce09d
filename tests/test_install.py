"""The installer tells uv what pip says, falls back on pip, and compiles what came."""

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

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
