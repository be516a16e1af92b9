"""Every implementation computes what nflows does: outputs, log-determinants, gradients and inverses, in float64."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import pytest
import torch
import tzk_plugin_fast_nflows
from fast_nflows_cases import CASES, EVERY_SECOND, HALVES, MAF, RQ, SCATTERED, SPLINE, net
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms import CompositeTransform, InverseTransform, LULinear, ReversePermutation
from nflows.transforms.base import InputOutsideDomain, Transform
from nflows.transforms.coupling import AffineCouplingTransform
from torch import Tensor, nn
from torch.func import functional_call, vmap

import tzk_core
from tzk_core import SharedFlow, TzK, TzkError
from tzk_core.errors import Note
from tzk_core.implementations import places
from tzk_core.plugins import PluginRecord, Registry
from tzk_core.plugins.builtin import BUILTIN
from tzk_core.plugins.loader import Loaded, load_all
from tzk_core.plugins.validation import specs_of
from tzk_core.testing import check_plugin


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """This plugin is installed, and no other."""
    hooks = specs_of(tzk_plugin_fast_nflows, "fast-nflows")
    record = PluginRecord(
        "fast-nflows", "tzk-plugin-fast-nflows", "0.2.0", "tzk_plugin_fast_nflows", hooks=tuple(hooks)
    )
    specs = tuple(spec for offered in hooks.values() for spec in offered)
    made = Registry([*load_all(BUILTIN, []), Loaded(record, specs)])
    monkeypatch.setattr(sys.modules["tzk_core.plugins.registry"], "_registry", lambda listed, strict: made)


def computed(layer: Transform, direction: Callable[..., tuple[Tensor, Tensor]], values: Tensor, context: Tensor | None):  # type: ignore[no-untyped-def]
    """Outputs, log-determinant, and the gradients of both in inputs and parameters."""
    leaf = values.clone().requires_grad_()
    outputs, logabsdet = direction(leaf, context)
    total = (outputs * torch.linspace(0.5, 1.5, outputs.numel(), dtype=outputs.dtype).view_as(outputs)).sum()
    total = total + (logabsdet * torch.linspace(1, 2, len(logabsdet), dtype=outputs.dtype)).sum()
    wanted = [leaf, *layer.parameters()]
    gradients = torch.autograd.grad(total, wanted, allow_unused=True)
    return (
        outputs,
        logabsdet,
        *(torch.zeros_like(p) if g is None else g for p, g in zip(wanted, gradients, strict=True)),
    )


@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_the_layer_does(name: str) -> None:
    case = CASES[name]
    plain = case.layer()
    fast = tzk_core.accelerate(copy.deepcopy(plain))
    assert type(fast).__module__.startswith("tzk_plugin_fast_nflows") and isinstance(fast, type(plain))
    inputs, context = case.inputs(), case.contexts()
    for mine, its in zip(computed(fast, fast, inputs, context), computed(plain, plain, inputs, context), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-9, atol=1e-9)
    outputs = plain(inputs, context)[0].detach()
    for mine, its in zip(
        computed(fast, fast.inverse, outputs, context), computed(plain, plain.inverse, outputs, context), strict=True
    ):
        torch.testing.assert_close(mine, its, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(fast.inverse(outputs, context)[0], inputs, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_it_holds_the_very_state_of_the_layer(name: str) -> None:
    case = CASES[name]
    plain = case.layer()
    parameters, state = dict(plain.named_parameters()), copy.deepcopy(plain.state_dict())
    fast = tzk_core.accelerate(plain)
    assert list(fast.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in fast.state_dict().items())
    assert all(parameters[key] is value for key, value in fast.named_parameters())
    fresh = tzk_core.accelerate(case.make().double().eval())
    fresh.load_state_dict(state)
    before = case.layer()(case.inputs(), case.contexts())[0]
    torch.testing.assert_close(fresh(case.inputs(), case.contexts())[0], before)


def stack() -> Flow:
    """A flow of nflows such as people write."""
    torch.manual_seed(0)
    shared = LULinear(6)
    layers = [SPLINE(HALVES, net), shared, AffineCouplingTransform(SCATTERED, net), InverseTransform(shared)]
    layers += [MAF(), ReversePermutation(6), RQ(tails="linear")]
    return Flow(CompositeTransform(layers), StandardNormal([6])).eval()


def test_a_flow_of_nflows_gets_them_throughout() -> None:
    flow, x = stack(), torch.randn(9, 6)
    optimizer = torch.optim.Adam(flow.parameters())
    before, state = flow.log_prob(x), copy.deepcopy(flow.state_dict())
    torch.manual_seed(1)
    samples = flow.sample(5)
    assert tzk_core.accelerate(flow) is flow
    assert sum(places(flow, "cpu").values()) == 5  # the shared matrix is one module
    layers = flow._transform._transforms
    assert layers[1] is layers[3]._transform
    torch.testing.assert_close(flow.log_prob(x), before, rtol=1e-4, atol=1e-4)
    torch.manual_seed(1)
    torch.testing.assert_close(flow.sample(5), samples, rtol=1e-3, atol=1e-3)
    assert list(flow.state_dict()) == list(state)
    (-flow.log_prob(x).mean()).backward()
    optimizer.step()
    assert not torch.equal(flow.log_prob(x), before)
    stack().load_state_dict(flow.state_dict())


def test_a_model_gets_them_too() -> None:
    model = TzK(SharedFlow(stack()._transform)).double()
    T = torch.randn(9, 6, dtype=torch.float64)
    before = model.log_prob(T)
    torch.testing.assert_close(tzk_core.accelerate(model).log_prob(T), before)
    torch.testing.assert_close(vmap(lambda x: model.log_prob(x[None])[0])(T), before)


def test_masks_that_are_loaded_are_used() -> None:
    torch.manual_seed(0)
    other = AffineCouplingTransform(EVERY_SECOND, net)
    fast = tzk_core.accelerate(AffineCouplingTransform(HALVES, net))
    fast.load_state_dict(other.state_dict())
    x = torch.randn(5, 6)
    torch.testing.assert_close(fast(x)[0], other(x)[0])


def test_weights_after_loading_are_not_those_of_a_cache() -> None:
    layer = LULinear(6, using_cache=True, identity_init=False).eval()
    fast, x = tzk_core.accelerate(layer), torch.randn(5, 6)
    fast(x)
    other = LULinear(6, identity_init=False).eval()
    fast.load_state_dict(other.state_dict())
    torch.testing.assert_close(fast(x)[0], other(x)[0])


def test_dropout_in_training_leaves_the_inverse_to_nflows() -> None:
    layer = tzk_core.accelerate(CASES["maf, dropout"].layer()).train()
    x = CASES["maf, dropout"].inputs()
    torch.manual_seed(0)
    mine = layer.inverse(x)[0]
    plain = CASES["maf, dropout"].layer().train()
    torch.manual_seed(0)
    torch.testing.assert_close(mine, plain.inverse(x)[0])


@pytest.mark.parametrize("name", ["spline, without tails", "elements, without tails", "spline maf, without tails"])
def test_outside_of_a_spline_without_tails_is_an_error_and_nan_where_none_can_be_raised(name: str) -> None:
    layer = tzk_core.accelerate(CASES[name].layer())
    outside = CASES[name].inputs()
    outside[2] = 1.5
    with pytest.raises(InputOutsideDomain):
        layer(outside)
    mapped = vmap(lambda x: layer(x[None])[0][0])(outside)
    assert mapped[2].isnan().any() and mapped[[0, 1, 3]].isfinite().all()


def test_values_at_the_knots_and_far_beyond_them() -> None:
    case = CASES["spline"]
    plain, x = case.layer(), torch.full((5, 6), 0.3, dtype=torch.float64)
    x[:, 3:] = torch.tensor([-2.0, 2.0, -1e6, 1e6, 2.0 + 1e-12], dtype=torch.float64)[:, None]
    fast = tzk_core.accelerate(copy.deepcopy(plain))
    for mine, its in zip(computed(fast, fast, x, None), computed(plain, plain, x, None), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-9, atol=1e-9)


def test_parameters_may_be_replaced_in_a_call() -> None:
    layer = tzk_core.accelerate(CASES["lu"].layer())
    x, twice = CASES["lu"].inputs(), {key: 2 * value for key, value in layer.named_parameters()}
    plain = CASES["lu"].layer()
    torch.testing.assert_close(functional_call(layer, twice, (x,))[0], functional_call(plain, twice, (x,))[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["affine", "affine, every second", "additive", "spline", "elements", "lu", "convolution", "maf", "spline maf"],
)
def test_each_compiles_as_one_graph(name: str) -> None:
    case = CASES[name]
    layer = tzk_core.accelerate(case.layer())
    for direction in (layer.forward, layer.inverse):
        torch._dynamo.reset()
        report = torch._dynamo.explain(direction)(case.inputs(), case.contexts())
        assert report.graph_break_count == 0 and report.graph_count == 1, report.break_reasons
    outputs = torch.compile(layer, fullgraph=True, backend="aot_eager")(case.inputs(), case.contexts())
    for mine, its in zip(outputs, case.layer()(case.inputs(), case.contexts()), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_a_whole_flow_compiles_as_one_graph() -> None:
    flow = tzk_core.accelerate(stack())
    report = torch._dynamo.explain(flow.log_prob)(torch.randn(9, 6))
    assert report.graph_break_count == 0, report.break_reasons
    torch._dynamo.reset()
    assert torch._dynamo.explain(stack().log_prob)(torch.randn(9, 6)).graph_break_count > 0  # nflows' own does not


def test_the_plugin_is_one() -> None:
    assert len(check_plugin("tzk_plugin_fast_nflows")) == 2 * len(tzk_plugin_fast_nflows.LAYERS)


def test_without_an_implementation_there_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = ReversePermutation(4)
    with pytest.warns(Note, match="no installed plugin has a faster implementation on 'cpu'"):
        assert tzk_core.accelerate(layer) is layer
    with pytest.raises(TzkError, match="such as an nflows Flow; got int"):
        tzk_core.accelerate(3)  # type: ignore[type-var]


def test_layers_of_ones_own_stay_as_they_are() -> None:
    class Mine(AffineCouplingTransform):
        """A coupling with another scale."""

    flow = nn.Sequential(Mine(HALVES, net), LULinear(6))
    tzk_core.accelerate(flow)
    assert type(flow[0]) is Mine and type(flow[1]) is not LULinear
