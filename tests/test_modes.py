"""A model is in evaluation mode but within a step: scores and samples depend on their input and the seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nflows.transforms.linear import Linear
from torch import Tensor, nn
from weights import same, state

import tzk_core
from tzk_core.build import build_flow, build_knowledge
from tzk_core.knowledge import Knowledge
from tzk_core.model import TzK
from tzk_core.modes import evaluating, training
from tzk_core.objective import Wording
from tzk_core.observations import Observations
from tzk_core.testing import check_knowledge
from tzk_core.testing.expectations import NotConforming
from tzk_core.training.observers import Progress
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer

RESIDUAL: dict[str, Any] = {"callable": "nflows.nn.nets:ResidualNet", "hidden_features": 8, "num_blocks": 1}
FLOWS: dict[str, list[dict[str, Any]]] = {
    "batch norm between layers": [{"type": "batch-norm"}, {"type": "affine"}],
    "batch norm and dropout in a network": [
        {
            "type": "masked-affine-autoregressive-transform",
            "hidden_features": 8,
            "use_batch_norm": True,
            "dropout_probability": 0.3,
        },
        {"type": "affine"},
    ],
    "dropout in a coupling": [
        {
            "type": "affine-coupling-transform",
            "mask": [1, -1, 1],
            "transform_net_create_fn": {**RESIDUAL, "dropout_probability": 0.5},
        }
    ],
    "a cache": [{"type": "lu-linear", "using_cache": True}, {"type": "affine"}],
}
COUNTING = [name for name in FLOWS if "batch norm" in name]

flows = pytest.mark.parametrize("layers", FLOWS.values(), ids=FLOWS.keys())
counting = pytest.mark.parametrize("layers", [FLOWS[name] for name in COUNTING], ids=COUNTING)


def data(count: int = 40, seed: int = 1) -> Tensor:
    return 2 + 3 * torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def presence(count: int = 40) -> dict[str, Tensor]:
    return {name: (torch.arange(count) % 2 == i).float() for i, name in enumerate(("a", "b"))}


def made(layers: list[dict[str, Any]]) -> TzK:
    flow = build_flow((3,), layers=layers)
    return TzK(flow, {name: build_knowledge("gaussian", (3,), name=name, hidden=4) for name in ("a", "b")})


def fitted(layers: list[dict[str, Any]], **more: Any) -> TzK:
    model = made(layers)
    tzk_core.fit(model, data(), presence(), steps=6, batch_size=16, **more)
    return model


def training_modules(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if module.training]


@flows
def test_built_fitted_and_loaded_models_are_in_evaluation_mode(layers: list[dict[str, Any]], tmp_path: Path) -> None:
    assert not training_modules(build_flow((3,), layers=layers)) and not training_modules(made(layers))
    seen: list[str] = []
    model = made(layers).train()
    tzk_core.fit(model, data(), presence(), steps=2, progress=lambda _: seen.extend(training_modules(model)))
    assert not seen and not training_modules(model)
    tzk_core.save(model, tmp_path / "saved")
    assert not training_modules(tzk_core.load(tmp_path / "saved"))
    model.add("c", build_knowledge("gaussian", (3,), name="c", hidden=4).train())
    assert not training_modules(model)


@flows
def test_the_flow_trains_within_a_step_and_no_longer(layers: list[dict[str, Any]]) -> None:
    model = made(layers)
    seen: list[tuple[bool, bool]] = []

    def stop(*_: Any) -> None:
        seen.append(
            (model.flow.transform.training, any(knowledge.training for _, knowledge in model.named_knowledge()))
        )
        if len(seen) > 2:
            raise KeyboardInterrupt

    model.flow.transform.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        tzk_core.fit(model, data(), presence(), steps=9, initialisation=0)
    assert seen == [(True, False)] * 3 and not training_modules(model)


@flows
def test_a_score_does_not_depend_on_its_company(layers: list[dict[str, Any]]) -> None:
    model, T = fitted(layers), data(6, seed=2)
    for name in (None, "a"):
        together, alone = model.log_prob(T, name), model.log_prob(T[:1], name)
        torch.testing.assert_close(together[:1], alone, rtol=1e-5, atol=1e-5)
        assert torch.equal(together, model.log_prob(T, name)), "nor on what was scored before"
    assert torch.equal(model.sample(5, seed=3), model.sample(5, seed=3))
    torch.testing.assert_close(model.decode(model.encode(T)), T, rtol=1e-4, atol=1e-3)


@flows
def test_a_loaded_model_scores_and_samples_as_the_one_that_was_saved(
    layers: list[dict[str, Any]], tmp_path: Path
) -> None:
    model, T = fitted(layers), data(6, seed=2)
    tzk_core.save(model, tmp_path / "saved")
    loaded = tzk_core.load(tmp_path / "saved")
    assert same(state(model), state(loaded))
    assert torch.equal(model.log_prob(T, "a"), loaded.log_prob(T, "a"))
    assert torch.equal(model.sample(5, "b", seed=3), loaded.sample(5, "b", seed=3))


@counting
def test_running_statistics_are_those_of_the_data_that_was_trained_on(layers: list[dict[str, Any]]) -> None:
    before, after = state(made(layers)), state(fitted(layers))
    moved = [key for key in before if "running" in key and not torch.equal(before[key], after[key])]
    assert len(moved) >= 2
    if layers[0]["type"] == "batch-norm":  # the first layer sees the data themselves: x goes to its mean, 0 before
        T, mean = data(), after["flow.transform._transforms.0.running_mean"]
        assert (mean - T.mean(0)).norm() < 0.7 * T.mean(0).norm()


@flows
def test_what_a_step_draws_is_of_the_seed_and_of_the_step(layers: list[dict[str, Any]], tmp_path: Path) -> None:
    torch.manual_seed(5)
    first = state(fitted(layers))
    torch.manual_seed(6)
    random = torch.get_rng_state()
    whole = fitted(layers)
    assert same(first, state(whole)) and torch.equal(random, torch.get_rng_state())
    # a run that stopped and goes on is the same again
    stopping = made(layers)

    def stop(reached: Progress) -> None:
        if reached.step == 3:
            raise KeyboardInterrupt

    trainers = []

    class Kept(Trainer):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            trainers.append(self)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("tzk_core.training.fit.Trainer", Kept)
        tzk_core.fit(stopping, data(), presence(), steps=6, batch_size=16, progress=stop)
    trainers[0].save(tmp_path)
    again = made(layers)
    resumed = Trainer(again, trainers[0].batches, trainers[0].settings, levels=None)
    resumed.resume(tmp_path)
    resumed.run()
    assert same(state(again), state(whole))


class Diverging:
    """Batches the third of which holds an infinity."""

    def batch(self, step: int) -> Observations:
        T = data(16, seed=step)
        return Observations(T * torch.inf if step == 2 else T, torch.zeros(16, 0))

    def sources(self, step: int) -> dict[str, slice]:
        return {"T": slice(0, 16)}


@counting
def test_a_step_that_fails_leaves_running_statistics_as_they_were(layers: list[dict[str, Any]]) -> None:
    model = TzK(build_flow((3,), layers=layers))
    trainer = Trainer(model, Diverging(), Settings(steps=5), levels=None)
    trainer.advance()
    trainer.advance()
    before = state(model)
    with pytest.raises((tzk_core.TzkError, RuntimeError, AssertionError)):
        trainer.advance()
    assert same(before, state(model)) and not training_modules(model)


@flows
def test_older_knowledge_is_bit_identical_after_an_addition(layers: list[dict[str, Any]]) -> None:
    model, T = fitted(layers), data(6, seed=2)
    before = state(model), model.log_prob(T), model.log_prob(T, "a"), model.sample(4, "b", seed=1)
    new = {"c": build_knowledge("gaussian", (3,), name="c", hidden=4)}
    tzk_core.add(model, new, data(30, seed=4), {"c": (torch.arange(30) % 3 == 0).float()}, steps=3, batch_size=8)
    after = {key: value for key, value in state(model).items() if not key.startswith("knowledge.c.")}
    assert same(before[0], after) and not training_modules(model)
    assert torch.equal(before[1], model.log_prob(T)) and torch.equal(before[2], model.log_prob(T, "a"))
    assert torch.equal(before[3], model.sample(4, "b", seed=1))


def test_a_missing_T_is_sampled_through_batch_normalisation() -> None:
    """The literal wording wants the Jacobian of the inverse, which batch normalisation has in evaluation mode only."""
    model, T = made(FLOWS["batch norm between layers"]), data()
    T[::4] = torch.nan
    trainer = tzk_core.fit(model, T, presence(), steps=2, wording=Wording(fill_in="literal"))
    assert trainer.step == 2 and not training_modules(model)


def test_a_linear_layer_follows_its_weights_in_any_type() -> None:
    model, T = made(FLOWS["a cache"]), data(4)
    (layer,) = [module for module in model.modules() if isinstance(module, Linear)]
    model.log_prob(T), model.sample(2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3
    expected = T @ layer.weight().T + layer.bias
    torch.testing.assert_close(layer(T)[0], expected)
    torch.testing.assert_close(layer.inverse(expected)[0], T, rtol=1e-4, atol=1e-4)
    assert model.double().log_prob(T.double()).dtype == torch.float64


class Noisy(Knowledge):
    """Against the contract: a knowledge type with random numbers of its own while it trains."""

    def __init__(self, latent_shape: tuple[int, ...]) -> None:
        like = build_knowledge("gaussian", latent_shape, hidden=4)
        super().__init__(latent_shape, like.latent, hidden=4)
        self.discriminator = nn.Sequential(nn.Dropout(0.5), self.discriminator)


def test_the_kit_refuses_knowledge_that_has_modes() -> None:
    noisy = Noisy((3,))
    noisy.initialise(torch.Generator().manual_seed(0))
    with pytest.raises(NotConforming, match="random numbers of its own|for the same noise again"):
        check_knowledge(noisy.eval(), data(2))


def test_modes_come_back_whatever_is_raised() -> None:
    module = nn.Sequential(nn.Linear(1, 1).train(), nn.Dropout().eval())
    module[1].eval()
    before = [part.training for part in module.modules()]
    with pytest.raises(ValueError, match="here"), evaluating(module):
        assert not training_modules(module)
        raise ValueError("here")
    assert [part.training for part in module.modules()] == before
    with pytest.raises(ValueError, match="here"), training(module):
        assert all(part.training for part in module.modules())
        raise ValueError("here")
    assert not training_modules(module)
