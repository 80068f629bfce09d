"""What kcm takes from torch's private parts does what the public counterparts do, and is taken in one module alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import kcm
from kcm.kan import _torch_private as private

X = torch.linspace(-4, 4, 33)


@pytest.mark.parametrize(("ours", "public"), [(private.hardsigmoid, F.hardsigmoid), (private.silu, F.silu)])
def test_private_operators_are_the_public_functions(ours, public) -> None:
    assert torch.equal(ours(X), public(X))


def test_softshrink_writes_where_it_is_told() -> None:
    out = torch.empty_like(X)
    assert private.softshrink_into(X, 0.5, out) is out
    assert torch.equal(out, F.softshrink(X, 0.5))


def test_silu_writes_where_it_is_told() -> None:
    out = torch.empty_like(X)
    assert private.silu_into(X, out) is out
    assert torch.equal(out, F.silu(X))


def test_buffers_are_the_module_s_own_and_follow_it() -> None:
    module = nn.BatchNorm1d(3).double()
    assert {name: id(tensor) for name, tensor in private.buffers(module).items()} == {
        name: id(tensor) for name, tensor in module.named_buffers()
    }


def test_function_transforms_are_noticed() -> None:
    seen = []
    torch.func.vmap(lambda x: seen.append(private.functions_are_transformed()) or x)(X)
    assert seen == [True]
    assert not private.functions_are_transformed()


def test_the_mark_of_a_constant_is_the_one_that_torch_sets() -> None:
    def ours() -> int:
        return 1

    def torchs() -> int:
        return 1

    assert vars(private.constant_to_compilers(ours)) == vars(torch.compiler.assume_constant_result(torchs)) != {}


def test_no_other_module_reaches_into_torch() -> None:
    reaches = re.compile(r"\btorch(\.\w+)*\._[a-z_C]|from torch\S* import .*\b_|\._dynamo")
    root = Path(kcm.__file__).parent
    users = {str(path.relative_to(root)) for path in root.rglob("*.py") if reaches.search(path.read_text("utf-8"))}
    assert users == {"kan/_torch_private.py"}
