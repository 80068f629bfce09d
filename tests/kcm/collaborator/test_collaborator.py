"""Judge and small start as copies, and KCM differs from its control MCM in its networks alone."""

import pytest
import torch

from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.kan import num_parameters

FEATURES = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["kan", "mlp"])
def test_judge_and_small_start_as_copies_that_learn_apart(kind) -> None:
    collaborator = Collaborator(12, 3, NetworkConfig(hidden=(4,)), kind, seed=0)
    judge, small = collaborator(FEATURES)
    assert judge.shape == (5, 3)
    assert torch.equal(judge, small)
    small.sum().backward()
    gradients = [parameter.grad for parameter in collaborator.judge.parameters()]
    assert not any(gradient is not None and gradient.any() for gradient in gradients)


@pytest.mark.parametrize("kind", ["kan", "mlp"])
def test_a_shared_network_is_one_network(kind) -> None:
    collaborator = Collaborator(12, 3, NetworkConfig(hidden=(4,), shared=True), kind, seed=0)
    assert collaborator.judge is collaborator.small
    judge, small = collaborator(FEATURES)
    assert judge is small


WITHOUT_BASE = {"hidden": (), "spline_order": 1, "base_activation": "none", "centred": True}


@pytest.mark.parametrize("network", [{"hidden": (4,)}, {"hidden": (16,)}, {"hidden": (8, 8)}, WITHOUT_BASE])
def test_mcm_has_as_many_parameters_as_kcm(network) -> None:
    network = NetworkConfig(**network)
    kcm, mcm = (num_parameters(Collaborator(384, 20, network, kind, 0).judge) for kind in ("kan", "mlp"))
    assert mcm == pytest.approx(kcm, rel=0.02)


@pytest.mark.parametrize("kind", ["kan", "mlp"])
def test_mixing_stands_before_the_networks_and_is_never_trained(kind) -> None:
    collaborator = Collaborator(12, 3, NetworkConfig(hidden=(4,), mixing=50), kind, seed=0)
    inputs = collaborator.inputs(FEATURES)
    assert inputs.shape == (5, 50)
    assert torch.equal(collaborator(FEATURES)[0], collaborator.judge(inputs))
    assert not [name for name, _ in collaborator.named_parameters() if name.startswith("mixing")]
    assert "mixing.weight" in collaborator.state_dict()


def test_a_linear_network_has_one_weight_per_feature_and_label() -> None:
    network = Collaborator(6, 4, NetworkConfig(shared=True), "linear", seed=0)
    x = torch.randn(5, 6)
    bent = network.judge(x[:1] + x[1:2]) + network.judge(torch.zeros(1, 6)) - network.judge(x[:2]).sum(0, keepdim=True)
    torch.testing.assert_close(bent, torch.zeros(1, 4), atol=1e-5, rtol=0)
    assert num_parameters(network) == 6 * 4 + 4


@pytest.mark.parametrize("kind", ["kan", "linear", "random_relu"])
def test_single_layers_start_at_zero_and_can_leave_it(kind) -> None:
    network = NetworkConfig(hidden=(), spline_order=1, base_activation="none", centred=True, zero_start=True)
    collaborator = Collaborator(12, 3, network, kind, seed=0)
    judge, small = collaborator(FEATURES)
    assert torch.equal(judge, torch.zeros(5, 3))
    small[:, 0].sum().backward()
    assert any(parameter.grad.abs().sum() > 0 for parameter in collaborator.small.parameters())


def test_only_the_last_kan_layer_starts_at_zero() -> None:
    """Promise: of a deeper KAN the last layer alone starts at zero, and of an MLP none."""
    network = NetworkConfig(hidden=(4,), zero_start=True)
    first, last = Collaborator(12, 3, network, "kan", seed=0).judge.kan_layers
    assert first.weight.any()
    assert not last.weight.any()
    plain = Collaborator(12, 3, network.model_copy(update={"zero_start": False}), "mlp", seed=0)
    for ours, theirs in zip(Collaborator(12, 3, network, "mlp", 0).parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("basis", "per_label"), [("quadratic", 12 + 200 + 1), ("relu", 200), ("pspline", 12 + 6 * 200 + 1)]
)
def test_other_basis_uses_projections_and_controls_match(basis, per_label) -> None:
    network = NetworkConfig(hidden=(), mixing=200, basis=basis)
    kan, relu, mlp, linear = (Collaborator(12, 3, network, kind, 0) for kind in ("kan", "random_relu", "mlp", "linear"))
    assert num_parameters(kan.judge) == num_parameters(relu.judge) == 3 * per_label
    assert num_parameters(mlp.judge) == pytest.approx(3 * per_label, rel=0.02)
    assert num_parameters(linear.judge) == 3 * 13
    for collaborator in (kan, relu, mlp, linear):
        assert collaborator.inputs(FEATURES).shape == FEATURES.shape
        assert collaborator(FEATURES)[0].shape == (5, 3)


@pytest.mark.parametrize("changes", [{"hidden": (4,), "mixing": 8}, {"mixing": 0}], ids=str)
def test_other_basis_needs_projections_and_no_hidden_layer(changes) -> None:
    with pytest.raises(ValueError, match=r"basis: quadratic is a single layer.*mixing, such as 2688"):
        NetworkConfig(**{"hidden": (), "basis": "quadratic"} | changes)


@pytest.mark.parametrize("kind", ["kan", "mlp", "linear", "random_relu"])
def test_equal_networks_are_merged_and_others_are_left(kind) -> None:
    collaborator = Collaborator(12, 3, NetworkConfig(hidden=(4,) if kind in ("kan", "mlp") else ()), kind, seed=0)
    merged = collaborator.merged()
    assert merged.judge is merged.small
    assert merged.network.shared
    assert not collaborator.network.shared
    for one, other in zip(merged(FEATURES), collaborator(FEATURES), strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        next(iter(collaborator.small.parameters())).add_(1e-6)
    assert collaborator.merged() is collaborator
