"""A run goes on with other rates, bounds and lengths, and with nothing else; one that diverged can go on as it says."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import tzk
from in_order import InOrder
from weights import same, state

import tzk_core
from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.config import config_from
from tzk_core.errors import TzkError
from tzk_core.observations import Observations
from tzk_core.runs.resume import changes
from tzk_core.storage.checkpoint import load_trainer, save_checkpoint
from tzk_core.training.schedules import shares_of
from tzk_core.training.settings import Settings
from tzk_core.training.soundness import Diverged, LastSound, all_finite
from tzk_core.training.trainer import Trainer

LAYERS = [{"type": "affine"}, {"type": "tiled-convolution"}, {"type": "symlog"}, {"type": "affine"}]
DATA = torch.randn(96, 2, generator=torch.Generator().manual_seed(0))


def made() -> TzK:
    model = TzK(build_flow((2,), layers=LAYERS))
    model.add("left", build_knowledge("gaussian", (2,), 0, name="left", hidden=40, layers=3))
    return model


def batches(bad: int | None = None) -> InOrder:
    """Batches that cannot be trained on from the step `bad` on."""
    observations = Observations(DATA, (DATA[:, :1] < 0).float(), ("left",))
    return InOrder(observations, broken=lambda step: bad is not None and step >= bad)


def trainer(bad: int | None = None, **settings: Any) -> Trainer:
    options = {"steps": 12, "log_every": 3, "checkpoint_every": 5, "learning_rate": 1e-2} | settings
    return Trainer(made(), batches(bad), Settings(**options), levels=None)


def stopping(at: int) -> Any:
    def progress(reached: Any) -> None:
        if reached.step == at:
            raise KeyboardInterrupt

    return progress


# other rates


@pytest.mark.parametrize(
    ("more", "slowed"),
    [
        ({"learning_rate": 1e-9}, r".*"),
        ({"knowledge_learning_rate": 1e-9}, r"knowledge\..*"),
        ({"elementwise_rate": 1e-7}, r"flow\..*(raw_log_scale|shift)"),
    ],
)
def test_a_changed_rate_is_the_one_that_trains(tmp_path: Path, more: dict[str, float], slowed: str) -> None:
    """What has a rate of next to nothing hardly moves any more; what has not goes on."""
    with pytest.raises(KeyboardInterrupt):
        trainer(schedule="constant").run(tmp_path, stopping(5))
    again = trainer(schedule="constant", **more)
    again.resume(tmp_path)
    before = dict(state(again.model))
    assert again.step == 5
    again.run(tmp_path)
    moved = {key: (each - before[key]).abs().max().item() for key, each in again.model.named_parameters()}
    slow = {key for key in moved if re.fullmatch(slowed, key)}
    assert slow and all(moved[key] < 1e-6 for key in slow)
    others = {key for key in moved if key.startswith("flow")} - slow
    assert all(moved[key] > 1e-3 for key in others)


def test_rates_are_those_of_now_in_every_group(tmp_path: Path) -> None:
    def one_of(**settings: Any) -> Trainer:
        return Trainer(made(), batches(), Settings(steps=8, **settings), levels=None)

    one = one_of(learning_rate=1e-2, elementwise_rate=10.0)
    with pytest.raises(KeyboardInterrupt):
        one.run(tmp_path, stopping(5))
    again = one_of(learning_rate=5e-3, elementwise_rate=2.0)
    fresh = [group["rate"] for group in again.optimizer.param_groups]
    again.resume(tmp_path)
    assert [group["rate"] for group in again.optimizer.param_groups] == fresh
    assert set(fresh) == {5e-3, 1e-2} and len(fresh) >= 3
    assert [group["rate"] for group in one.optimizer.param_groups] != fresh


def test_a_resumed_run_with_more_steps_decays_to_the_new_end(tmp_path: Path) -> None:
    """The same as a run laid out for that length from the checkpoint on."""
    one = trainer()
    one.run(tmp_path)
    again = trainer(steps=20)
    again.resume(tmp_path)
    again.run(tmp_path)
    by_hand = trainer(steps=20)
    for step in range(20):
        by_hand.settings = Settings(**{**vars(by_hand.settings), "steps": 12 if step < 12 else 20})
        by_hand.rate_share = shares_of(by_hand.settings)
        by_hand.advance()
    assert again.step == 20 and same(state(again.model), state(by_hand.model))


def test_a_state_of_other_groups_of_parameters_is_refused(tmp_path: Path) -> None:
    one = trainer()
    one.run(tmp_path)
    saved = one._state()
    saved["optimizer"]["param_groups"].pop()
    save_checkpoint(one.model, tmp_path / "checkpoint", saved)
    with pytest.raises(TzkError, match="other groups of parameters .*cannot be resumed"):
        trainer().resume(tmp_path)


# what is finite


def test_what_is_not_finite_is_found() -> None:
    assert all_finite([torch.ones(3), torch.tensor([1, 2])]) and all_finite([])
    assert not all_finite([torch.ones(3), torch.tensor([1.0, math.inf])])
    assert not all_finite([torch.tensor([math.nan])])


def test_a_state_is_sound_if_no_worse_than_the_median_and_a_step_followed() -> None:
    sound = LastSound()
    sound.offer(None, lambda: {"step": 0})
    assert sound.state is None
    sound.confirm()
    assert sound.state == {"step": 0}
    taken = []
    for step, score in enumerate([1.0, 3.0, 2.0, 1.5, 1.0, 0.5, 4.0], 1):
        sound.offer(score, lambda step=step: {"step": step})
        sound.confirm()
        taken.append(sound.state["step"])
    assert taken == [1, 2, 3, 3, 3, 3, 7], "from 2.0 on it falls, until 4.0"


def test_the_state_is_a_copy() -> None:
    sound, tensor = LastSound(), torch.zeros(2)
    sound.offer(None, lambda: {"nested": [{"tensor": tensor}]})
    sound.confirm()
    tensor.fill_(1.0)
    assert sound.state is not None and sound.state["nested"][0]["tensor"].tolist() == [0, 0]


def test_a_state_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    """Ctrl-C after a step that made a weight infinite, before any objective shows it."""
    one = trainer()
    seen = {}

    def break_and_stop(reached: Any) -> None:
        seen[reached.step] = state(one.model)
        if reached.step == 8:
            with torch.no_grad():
                next(one.model.parameters()).fill_(math.inf)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.run(tmp_path, break_and_stop)
    step = load_trainer(tmp_path / "checkpoint")["step"]
    assert step in (3, 6) and same(state(tzk_core.load(tmp_path)), seen[step])
    with torch.no_grad():
        next(one.model.parameters()).fill_(math.nan)
    with pytest.raises(Diverged, match="parameters or moments"):
        one.save(tmp_path)
    assert load_trainer(tmp_path / "checkpoint")["step"] == step


def test_weights_that_overflow_in_the_last_step_are_noticed(tmp_path: Path) -> None:
    one = trainer(steps=4, log_every=2)

    def break_it(reached: Any) -> None:
        if reached.step == 3:
            with torch.no_grad():
                one.optimizer.state_dict()["state"][0]["exp_avg"].fill_(math.inf)

    with pytest.raises(Diverged) as caught:
        one.run(tmp_path, break_it)
    assert caught.value.back == load_trainer(tmp_path / "checkpoint")["step"] == 2
    assert all(each.isfinite().all() for each in tzk_core.load(tmp_path).parameters())


def test_a_first_step_that_is_not_finite_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="no earlier state .*no learning rate helps") as caught:
        trainer(bad=0).run(tmp_path)
    assert caught.value.back is None and not (tmp_path / "checkpoint").exists()


def test_a_step_right_after_a_state_says_whether_it_is_sound(tmp_path: Path) -> None:
    """The step after 6 is not finite, whatever its rate: the state of step 3 is the one to go on from."""
    with pytest.raises(Diverged) as caught:
        trainer(bad=6).run(tmp_path)
    assert (caught.value.step, caught.value.back) == (6, 3)
    assert load_trainer(tmp_path / "checkpoint")["step"] == 3


# the state of a training


STATE_CHANGES: list[dict[str, Any]] = [
    *({key: None} for key in ("step", "seconds", "optimizer", "multipliers", "sums", "counts")),
    *({key: value} for key in ("seconds", "multipliers", "banks") for value in ("x", -1, math.nan, [], {3: 4})),
    {"optimizer": {"state": {}}},
    {"optimizer": {"state": {0: 3}, "param_groups": []}},
    {"optimizer": {"state": [], "param_groups": [{}]}},
    {"validations": [3]},
    {"validations": [{"step": 1}]},
    {"banks": [{"x": 1}]},
    {"multipliers": {"left": "x"}},
]


@pytest.mark.parametrize("change", STATE_CHANGES, ids=str)
def test_a_state_of_another_structure_is_a_sentence(tmp_path: Path, change: dict[str, Any]) -> None:
    one = trainer(steps=5)
    one.run(tmp_path)
    whole = load_trainer(tmp_path / "checkpoint")
    (key, value), *_ = change.items()
    altered = {k: v for k, v in whole.items() if k != key} | ({} if value is None else change)
    if altered == whole:
        pytest.skip("this is how it was")
    save_checkpoint(one.model, tmp_path / "checkpoint", altered)
    with pytest.raises(TzkError, match=r"trainer\.pt does not|the optimiser's state in this|this training has"):
        trainer().resume(tmp_path)


# which keys may change

TABLES = {
    "name": "small",
    "flow": {"layers": [{"type": "affine"}]},
    "datasets": [{"name": "moons", "type": "two-moons", "train": 200, "validation": 60, "test": 60}],
    "knowledge": [{"name": "moons", "type": "gaussian", "hidden": 4, "present": {"dataset": "moons"}}],
    "training": {"steps": 12, "batch_size": 16, "log_every": 2, "validate_every": 4, "initialisation": 32},
    "evaluation": {"importance_samples": 2},
    "pictures": {"draw": []},
}


@pytest.mark.parametrize(
    "override",
    [
        *("training.learning_rate=0.5", "training.clip=1.0", "training.minutes=9.0", "training.patience=3"),
        *("training.steps=99", "training.elementwise_rate=2.0", "training.knowledge_learning_rate=0.1"),
        *("training.checkpoint_every=7", "evaluation.limit=5"),
    ],
)
def test_what_may_change(override: str) -> None:
    stored, asked = config_from(TABLES), config_from(TABLES, overrides=[override])
    (change,) = changes(stored, asked, Path("run"))
    assert f"{change.name}={change.new}" == override
    assert change.longer == (change.name in ("training.steps", "training.minutes", "training.patience"))


@pytest.mark.parametrize(
    "override",
    [
        *("training.batch_size=8", "training.steps=11", "training.beta2=0.9", "training.validate_every=2", "seed=1"),
        *("objective.tolerance=1.0", "training.warmup=1", "knowledge.moons.hidden=5", "training.schedule=constant"),
    ],
)
def test_what_may_not_change_is_named(override: str) -> None:
    stored, asked = config_from(TABLES), config_from(TABLES, overrides=[override])
    key = override.partition("=")[0].replace("moons.hidden", "0.arguments.hidden").replace("schedule", "schedule.type")
    with pytest.raises(TzkError, match=f"run cannot be resumed .*: {re.escape(key)} was .* and is"):
        changes(stored, asked, Path("run"))


# by hand


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.toml"
    path.write_text(config_from(TABLES).to_toml())
    return path


def record(run: str) -> dict[str, Any]:
    return json.loads(Path(run, "run.json").read_text())


def test_a_finished_run_goes_on_for_more_steps_and_says_what_changed(config: Path) -> None:
    assert tzk("run", config, "--out", "out").exit_code == 0
    said = tzk("run", "out", "--resume", "training.learning_rate=0.5")
    assert "there is nothing to resume" in said.stdout and "resumes" not in record("out")
    said = tzk("run", "out", "--resume", "training.steps=20", "training.learning_rate=0.0005")
    assert said.exit_code == 0, said.output
    assert "going on from step 12\n" in said.stdout
    assert "training.steps was 12 and is 20" in said.stdout
    (resumed,) = record("out")["resumes"]
    assert resumed["step"] == 12
    assert resumed["changes"] == {"training.steps": [12, 20], "training.learning_rate": [0.003, 0.0005]}
    assert record("out")["status"] == "finished" and record("out")["trained_steps"] == 20
    assert load_trainer(Path("out/checkpoint"))["step"] == 20
    assert "steps = 20" in Path("out/config.toml").read_text()


def test_what_was_edited_in_the_folder_is_noticed(config: Path) -> None:
    assert tzk("run", config, "--out", "out").exit_code == 0
    own = Path("out/config.toml")
    whole = own.read_text()
    own.write_text(whole.replace("batch_size = 16", "batch_size = 8"))
    refused = tzk("run", "out", "--resume")
    assert refused.exit_code == 2 and "training.batch_size was 16 and is 8" in refused.stderr
    own.write_text(whole.replace("steps = 12", "steps = 14"))
    said = tzk("run", "out", "--resume")
    assert said.exit_code == 0 and "training.steps was 12 and is 14" in said.stdout
    assert record("out")["resumes"][0]["changes"] == {"training.steps": [12, 14]}


OVERFLOW = {
    "flow": {"layers": [{"type": "affine"}, {"type": "tiled-convolution"}, {"type": "affine"}]},
    "training": TABLES["training"] | {"learning_rate": 10.0},
}
"""The first step takes the flow to where its gradient is infinite."""

EXPLOSION = {
    "flow": {"recipe": "paper", "steps": 2, "tile": 4},
    "datasets": [{"name": "moons", "type": "glyph-digits", "train": 60, "validation": 20, "test": 20}],
    "training": TABLES["training"] | {"learning_rate": 3.0, "warmup": 40, "schedule": "constant", "validate_every": 2},
}
"""While the rate rises, validation data come to need more bits than their grey levels have."""


@pytest.mark.parametrize(("tables", "best"), [(OVERFLOW, False), (EXPLOSION, True)])
def test_the_advice_after_a_divergence_works(config: Path, tables: dict[str, Any], best: bool) -> None:
    """The command of the message, typed as it is, goes on to the end."""
    config.write_text(config_from(TABLES | tables).to_toml())
    broken = tzk("run", config, "--out", "out")
    assert broken.exit_code == 2 and "training diverged at step" in broken.stderr
    kept = record("out")
    assert kept["status"] == "diverged"
    at = kept["diverged"]
    assert load_trainer(Path("out/checkpoint"))["step"] == at["checkpoint_step"] < at["step"]
    assert all_finite(tzk_core.load("out/checkpoint").parameters())
    assert best == (at["best_step"] is not None) == Path("out/best").is_dir()
    assert f"with the state of step {at['checkpoint_step']}" in broken.stderr
    command = shlex.split(broken.stderr.strip().splitlines()[-1])
    assert command[:4] == ["tzk", "run", "out", "--resume"] and "learning_rate" in command[4]
    done = tzk(*command[1:])
    assert done.exit_code == 0, done.output
    assert record("out")["status"] == "finished" and record("out")["trained_steps"] == 12
    assert record("out")["resumes"][0]["step"] == at["checkpoint_step"]
