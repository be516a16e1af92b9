"""What the benchmarks compare is comparable: the stock model is the same model, and adding the same work."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import add_cost  # noqa: E402
import compile as compiling  # noqa: E402
import distributed  # noqa: E402
import jax_flows  # noqa: E402
import kernels  # noqa: E402
import many_types  # noqa: E402
import numpy  # noqa: E402
import peers  # noqa: E402
import pytest  # noqa: E402
import sampling  # noqa: E402
import timing  # noqa: E402
import torch  # noqa: E402
import train_step  # noqa: E402
from models import small  # noqa: E402

from tzk_core import TzkError  # noqa: E402


def test_the_stock_model_has_the_objective_and_gradients_of_ours() -> None:
    batches = train_step.Made(64, count=1)
    difference = train_step.compare(train_step.perturbed_model(batches), batches.batch(0))
    assert max(difference.values()) < 1e-9


def test_adding_the_first_and_the_fourth_takes_the_same_memory_and_the_same_flow() -> None:
    first, fourth = add_cost.trainers([0, 3], batch_size=16, steps=1).values()
    for mine, theirs in zip(first.model.flow.parameters(), fourth.model.flow.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for trainer in (first, fourth):
        trainer.advance()
    assert add_cost.peak(first.advance) == add_cost.peak(fourth.advance) > 16 * 1024 * 4
    parameters = sum(p.numel() for p in first.model.knowledge.parameters())
    assert add_cost.state(first) == add_cost.state(fourth) >= 2 * 4 * parameters


def test_the_cost_of_adding_is_summed_up_as_ratios_within_a_round() -> None:
    taken = {"1": [(1.0, 2.0), (2.0, 4.0), (1.0, 2.0)], "10": [(1.5, 2.0), (3.0, 4.0), (1.5, 2.0)]}
    actual = timing.beside_the_first(taken)
    assert (
        actual["1"]["wall"]["ratio"] == 1 and actual["10"]["wall"]["ratio"] == 1.5 and actual["10"]["cpu"]["ratio"] == 1
    )
    assert actual["10"]["wall"]["ratio_quartiles"] == [1.5, 1.5]


def test_options_are_read_with_what_they_have_to_be_at_least(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = timing.Options("What it times.\n\nMore.", rounds=9, batch_size=128, least=64, device="cpu", threads=False)
    options.count("--number", default=3, help="of images", least=2)
    monkeypatch.setattr(sys, "argv", ["it", "--rounds", "2", "--json"])
    read = options.read()
    assert vars(read) == {"json": True, "rounds": 2, "batch_size": 128, "device": "cpu", "number": 3}
    for words, message in (
        (["--rounds", "1"], "expected --rounds of at least 2; got 1"),
        (["--batch-size", "63"], "expected --batch-size of at least 64; got 63"),
        (["--number", "1"], "expected --number of at least 2; got 1"),
    ):
        monkeypatch.setattr(sys, "argv", ["it", *words])
        with pytest.raises(SystemExit):
            options.read()
        assert message in capsys.readouterr().err


def test_all_take_turns_and_the_round_that_warms_up_does_not_count() -> None:
    turns: list[str] = []
    taken = timing.measure({name: partial(turns.append, name) for name in "ab"}, rounds=3, repeat=1)
    assert "".join(turns) == "ba" + "ab" + "ba" + "ab"
    assert all(len(pairs) == 3 and min(map(min, pairs)) >= 0 for pairs in taken.values())


def test_ratios_are_within_a_round_and_their_spread_is_rounded() -> None:
    taken = {"a": [(1.0, 2.0), (2.0, 4.0), (4.0, 4.0)], "b": [(3.0, 2.0), (6.0, 8.0), (4.0, 12.0)]}
    assert timing.ratios(taken, "b", "a") == [3, 3, 1] and timing.ratios(taken, "b", "a", clock="cpu") == [1, 2, 3]
    assert timing.spread([1.0, 2.0, 4.0], 2) == (2.0, [1.0, 4.0])
    assert timing.of_two(taken, "a", "b")["cpu"]["ratio"] == 2.0


def test_every_call_returns_as_many_new_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(("gaussian", "flow"))
    sampled: list[torch.Tensor] = []
    original = model.sample
    monkeypatch.setattr(model, "sample", lambda *arguments, **named: sampled.append(original(*arguments, **named)))
    steps = sampling.sampling_steps(model, ["k1"], 5)
    for step in (steps["prior"], steps["prior"], steps["k1"], steps["k1"]):
        step()
    assert all(value.shape == (5, 3) for value in sampled)
    assert len({value.sum().item() for value in sampled}) == 4
    with pytest.raises(TzkError, match="no knowledge type 'k7'"):
        sampling.sampling_steps(model, ["k7"], 5)


def test_sampling_is_summed_up_in_seconds_and_as_a_ratio_to_the_prior() -> None:
    taken = {"prior": [(1.0, 2.0), (2.0, 4.0), (3.0, 6.0)], "a": [(1.5, 2.0), (3.0, 4.0), (4.5, 6.0)]}
    actual = sampling.summary(taken)
    assert actual["prior"]["wall"] == {"seconds": 2.0, "quartiles": [1.0, 3.0], "ratio": 1.0}
    assert actual["a"]["wall"]["ratio"] == 1.5 and actual["a"]["cpu"]["ratio"] == 1.0


def test_the_memory_of_the_kernels_is_that_of_the_same_step() -> None:
    T = train_step.Made(64, count=1).batch(0).T[:3]
    shallow, deep = (kernels.steps_of(depth, T, rounds=2) for depth in (1, 2))
    for ways in (shallow, deep):
        assert max(way["gradient_error"] for way in ways.values()) < 1e-3
        assert ways["layers"]["places"] == 0 and all(way["seconds"] > 0 for way in ways.values())
    assert [deep[way]["places"] for way in ("operators", "last kept")] == [2, 2]
    assert deep["last kept"]["kept_bytes"] == shallow["last kept"]["kept_bytes"] >= T.numel() * 4
    assert "last kept" in kernels.shown({"flow": {1: shallow}, "kernels": {}, "batch_size": 3, **timing.machine()})


def test_every_kernel_has_a_case() -> None:
    kernel_cases = pytest.importorskip("kernel_cases", reason="tzk-plugin-kernels or tzk-plugin-glow is missing")
    for case in kernel_cases.cases(2, 256, "cpu").values():
        assert all(value.isfinite().all() for value in case.kernel()) and case.bytes_moved > 0


@pytest.mark.slow
def test_many_types_are_trained_with_few_at_a_time_and_saved_and_loaded(tmp_path: Path) -> None:
    ten, forty = (many_types.trainer(n, batch_size=8, type="low-rank", steps=1, dims=8) for n in (10, 40))
    for mine, theirs in zip(ten.model.flow.parameters(), forty.model.flow.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for trainer in (ten, forty):
        trainer.advance()
    assert forty.parameter_tables.size > 0 == ten.parameter_tables.size
    steps = many_types.others(forty.model, tmp_path, forty.batches.batch(0).T, type="low-rank", dims=8)
    for step in steps.values():
        step()
    actual = many_types.seconds(steps["posterior"], 2)
    assert actual["wall"]["seconds"] > 0 and len(forty.model.knowledge) == 40
    loaded = steps["load"]()
    for name, value in forty.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_compiling_pays_once_what_it_saves_is_what_it_took() -> None:
    taken = {"plain": [(0.3, 0.6)] * 3, "compiled": [(0.2, 0.3)] * 3}
    actual = compiling.summary(taken, seconds=5.05)
    assert actual["wall"]["ratio"] == 1.5 and actual["cpu"]["ratio"] == 2.0
    assert actual["pays_from_steps"] == 51
    assert compiling.summary({"plain": taken["compiled"], "compiled": taken["plain"]}, 5.0)["pays_from_steps"] is None


@pytest.mark.parametrize("architecture", peers.FLOWS)
def test_the_flows_of_other_libraries_are_the_same(architecture: str) -> None:
    sizes = peers.Sizes(dims=6, hidden=8, steps=2)
    flows, missing = peers.same_flows(architecture, sizes, torch.device("cpu"))
    assert flows.keys() | missing.keys() == {"tzk", *peers.LIBRARIES} and "nflows" in flows
    x = torch.randn(5, 6)
    for flow in flows.values():
        assert flow.parameters == flows["tzk"].parameters
        for step in flow.tasks(x, 4).values():
            step()
        if isinstance(flow, peers.Flow):
            assert flow.log_prob(x).shape == (5,) and flow.sample(4).shape == (4, 6)
            assert all(p.grad is not None for p in flow.module.parameters() if p.requires_grad)


@pytest.mark.parametrize("spline", [None, (3, 5.0)])
def test_flowjax_is_timed_on_a_density_with_all_of_its_gradients(spline: tuple[int, float] | None) -> None:
    jax = pytest.importorskip("jax", reason="flowjax is not installed")
    pytest.importorskip("flowjax.flows", reason="flowjax is not installed", exc_type=ImportError)
    flow = jax_flows.JaxFlow(dims=2, hidden=4, layers=2, spline=spline)
    ticks = torch.linspace(-9, 9, 181)
    grid = torch.cartesian_prod(ticks, ticks)
    tasks = flow.tasks(grid, 7)
    value, gradient = tasks["log_prob"]()
    log_prob = torch.from_numpy(numpy.array(flow.log_prob(grid.numpy())))
    torch.testing.assert_close(-log_prob.mean().item(), float(value), rtol=1e-4, atol=1e-4)
    assert abs(log_prob.exp().sum().item() * 0.01 - 1) < 1e-2
    leaves = jax.tree_util.tree_leaves(gradient)
    assert sum(leaf.size for leaf in leaves) == flow.parameters
    assert all(abs(leaf).max() > 0 for leaf in leaves[-1:]) and tasks["sample"]().shape == (7, 2)


def test_what_is_not_installed_is_left_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    others = ("normflows", "zuko", "FrEIA", "flowjax")
    for name in (*others, "flowjax.flows"):  # which stays importable once it was imported
        monkeypatch.setitem(sys.modules, name, None)
    actual = peers.compared("couplings", peers.Sizes(4, 4, 2), batch_size=8, rounds=2, device=torch.device("cpu"))
    assert actual["left_out"] == dict.fromkeys(others, "is not installed")
    assert actual["log_prob"]["tzk"]["ratio"] == 1 and set(actual["sample"]) == {"tzk", "nflows"}


@pytest.mark.slow
@pytest.mark.parametrize("owners_from", [0, 1])
def test_one_process_and_several_train_the_same_model(owners_from: int) -> None:
    flow = {"recipe": "multiscale", "widths": [32], "blocks": [1], "steps": 0, "lead": 1}
    several = distributed.Several(2, 1, ("joint-glow-cpu", 64, flow, owners_from))
    try:
        compared = distributed.compared(several, distributed.trainer("joint-glow-cpu", 64, flow=flow))
    finally:
        several.close()
    assert compared["difference"] < 1e-5
    assert compared["bytes_of_flow"] < compared["bytes"] < 20 * compared["bytes_of_flow"]
    assert bool(compared["bytes_of_rows"]) is bool(owners_from)
