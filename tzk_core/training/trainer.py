"""The training loop: batches in, Eq. 5 maximised, checkpoints and a log out."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.objective import (
    Capacity,
    Multipliers,
    Noise,
    Objective,
    Wording,
    mental_capacity,
    sampled_absences,
)
from tzk_core.objective.routing import presence
from tzk_core.objective.terms import terms
from tzk_core.observations import Observations
from tzk_core.random_streams import stream
from tzk_core.training.banks import Banks
from tzk_core.training.checkpoint import load_checkpoint, load_trainer, save_checkpoint
from tzk_core.training.muon import MuonWithAdam, matrices_of
from tzk_core.training.settings import Settings
from tzk_core.units import bits_per_dim

if TYPE_CHECKING:
    from tzk_core.objective.compiled import CompiledTerms
    from tzk_core.training.processes import ProcessTerms


class Batches(Protocol):
    """Where observations come from: a batch depends on its step alone, so that a run can be resumed anywhere."""

    def batch(self, step: int) -> Observations: ...

    def sources(self, step: int) -> Mapping[str, slice]:
        """Data set -> its rows in the batch of this step."""
        ...


@dataclass(frozen=True)
class Progress:
    """What is known after a step, averaged since the last line of the log: the bits are of log p(T), by data set; the
    nats, by knowledge, are the mean of log p(z given C) - log p(z) of the samples in which it is present. `compiled`:
    the seconds of this step, if it was compiled in it."""

    step: int
    steps: int
    seconds: float
    seconds_left: float
    bits_per_dim: dict[str, float]
    nats: dict[str, float] = field(default_factory=dict)
    compiled: float | None = None


class Trainer:
    """Trains a model in place. The state after a step depends on model, batches, settings and seed only.

    `levels`: grey levels of the data, for the bits in the log; None for real-valued data. `trained`: the knowledge
    types that are trained, all else being held as it is, the shared flow included; None trains everything.

    `compile_seconds`: of the steps in which something was compiled, `compile_steps` in number.
    """

    def __init__(
        self,
        model: TzK,
        batches: Batches,
        settings: Settings,
        seed: int = 0,
        levels: int | None = 256,
        trained: Sequence[str] | None = None,
    ) -> None:
        self.model, self.batches, self.settings, self.seed, self.levels = model, batches, settings, seed, levels
        self.fixed_flow = trained is not None
        self.trained = tuple(name for name, _ in model.named_knowledge()) if trained is None else tuple(trained)
        self.step = 0
        self.seconds = 0.0
        self.multipliers = Multipliers(
            dict.fromkeys(self.trained, settings.multiplier),
            settings.tolerance,
            settings.multiplier_rate,
            settings.multiplier_max,
        )
        flows = [] if self.fixed_flow else [model.flow]
        kinds = {name: model.find(name) for name in self.trained}
        self.banks = Banks(kinds, _rate(*_knowledge_rates(settings, flows)), settings.betas)
        alone = [kind for name, kind in kinds.items() if name not in self.banks.names]
        groups = _groups(flows, alone, settings)
        parts: list[nn.Module] = [*flows, *kinds.values()]
        trained_parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
        if not trained_parameters:
            raise TzkError("nothing to train: this model has no parameter that requires a gradient")
        self._like = trained_parameters[0]
        self.optimizer = _optimizer(groups, set() if self.fixed_flow else matrices_of(model.flow), settings)
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._compiled = self._compile()
        self._spread = self._in_processes()
        self.compile_seconds, self.compile_steps = 0.0, 0
        # A step takes ten times as long once numbers become denormal.
        torch.set_flush_denormal(True)

    def advance(self) -> Capacity:
        """One step. Raises `TzkError` if the objective or its gradient is not finite; the model is then as before."""
        observations = self._hiding(self.batches.batch(self.step)).to(self._like.device, self._like.dtype)
        self.banks.forget()
        capacity = mental_capacity(
            self.model,
            observations,
            self.noise_of(self.step),
            multipliers=self.multipliers.values,
            latent_noise=self._latent_noise,
            objective=self._objective(),
        )
        dims = observations.T[0].numel()
        self.optimizer.zero_grad(set_to_none=True)
        (-capacity.value / dims).backward()
        if self._compiled:
            self._compiled.clear_idle(self.model, _idle(observations, self.settings.wording))
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients += self.banks.gradients()
        norm = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm) or not torch.isfinite(capacity.value):
            raise TzkError(
                f"training diverged at step {self.step}: objective {capacity.value.item()}, "
                f"gradient norm {norm.item()}. The last checkpoint is sound; go on from it with a lower "
                "training.learning_rate or a training.clip"
            )
        if self.settings.clip is not None and norm > self.settings.clip:
            for gradient in gradients:
                gradient.mul_(self.settings.clip / norm)
        share = self.settings.schedule(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * share
        self.optimizer.step()
        self.banks.step(share)
        self.multipliers.ascend(capacity.inconsistency)
        self._count(capacity)
        self.step += 1
        return capacity

    def _objective(self) -> Objective:
        """The objective at this step."""
        generator = stream(self.seed, "absences", self.step)
        return Objective(
            wording=self.settings.wording,
            emphasis=self.settings.emphasis,
            kl_weight=self.settings.kl_weight(self.step),
            fixed_flow=self.fixed_flow,
            absences=partial(sampled_absences, most=self.settings.negatives, generator=generator),
            stacks=self.banks,
            evaluator=self._compiled or self._spread or terms,
        )

    @property
    def compilation(self) -> dict[str, Any] | None:
        """What came of compiling, for the record of a run: the seconds of the steps in which something was, or why
        nothing could be; None if nothing was to be."""
        if self._compiled is None:
            return None
        if self._compiled.failure is not None:
            return {"failure": self._compiled.failure}
        return {"seconds": round(self.compile_seconds, 3), "steps": self.compile_steps}

    def _compile(self) -> CompiledTerms | None:
        if not self.settings.compiles(self._like.device.type, len(self.model.knowledge)):
            return None
        from tzk_core.objective.compiled import CompiledTerms  # the compiler takes a second to import

        return CompiledTerms(required=self.settings.compile is True)

    def _in_processes(self) -> ProcessTerms | None:
        if self.settings.processes == 1:
            return None
        if self._like.device.type != "cpu":
            raise TzkError(
                f"processes = {self.settings.processes} is for CPUs, and this model is on {self._like.device}: write "
                "processes = 1"
            )
        from tzk_core.training.processes import ProcessTerms

        return ProcessTerms(self.model.flow, self.settings.processes)

    def close(self) -> None:
        """Ends the processes that the shared flow is trained in, where there are several; `run` does it at its end."""
        if self._spread is not None:
            self._spread.spread.close()

    def run(
        self,
        folder: Path | None = None,
        progress: Callable[[Progress], None] | None = None,
        checkpoints: bool = True,
    ) -> None:
        """Trains to the end, or to the cap in minutes, from wherever it is.

        With `folder`, writes metrics.csv and, unless told not to, checkpoints there, the last one at the end. On
        KeyboardInterrupt a checkpoint is written before the exception goes on.
        """
        saved_to = folder if checkpoints else None
        settings, started = self.settings, time.monotonic() - self.seconds
        first, begun = self.step, time.monotonic()
        try:
            while self.step < settings.steps:
                compiled = self._timed_step()
                self.seconds = time.monotonic() - started
                due = self.step % settings.log_every == 0 or self.step == settings.steps
                plain = max(1, self.step - first - self.compile_steps)
                left = (time.monotonic() - begun - self.compile_seconds) / plain * (settings.steps - self.step)
                if settings.minutes is not None:
                    left = min(left, max(0.0, 60 * settings.minutes - self.seconds))
                means = self._means("bits_per_dim"), self._means("conditional")
                reached = Progress(self.step, settings.steps, self.seconds, left, *means, compiled)
                if due and folder:
                    self._log(Path(folder) / "metrics.csv")
                if self.step % settings.checkpoint_every == 0 and saved_to:
                    self.save(saved_to)
                if progress:  # last, so that an interrupt from here finds the step logged
                    progress(reached)
                if settings.minutes is not None and self.seconds > 60 * settings.minutes:
                    break
        except KeyboardInterrupt:
            if saved_to:
                self.save(saved_to)
            raise
        finally:
            self.close()
        if saved_to:
            self.save(saved_to)

    def _timed_step(self) -> float | None:
        """One step, and how many seconds it took if something was compiled in it."""
        if self._compiled is None:
            self.advance()
            return None
        graphs, began = self._compiled.graphs, time.monotonic()
        self.advance()
        if self._compiled.graphs == graphs:
            return None
        seconds = time.monotonic() - began
        self.compile_seconds += seconds
        self.compile_steps += 1
        return seconds

    def save(self, folder: Path) -> None:
        """Writes folder/checkpoint with everything that is needed to go on."""
        save_checkpoint(self.model, Path(folder) / "checkpoint", self._state())

    def resume(self, folder: Path) -> None:
        """Takes weights, optimiser, multipliers and step from folder/checkpoint. The settings have to be the same.

        Lines of metrics.csv that come after that checkpoint, as a kill may leave them, are taken out.
        """
        saved = load_checkpoint(Path(folder) / "checkpoint", flow=self.model.flow)
        for opaque in saved.opaque.values():
            raise TzkError(f"{folder} cannot be resumed: {opaque.reason}")
        self.model.load_state_dict(saved.state_dict())
        state = load_trainer(Path(folder) / "checkpoint")
        self.banks.load_state_dict(state.get("banks", []))
        self.optimizer.load_state_dict(state["optimizer"])
        self.multipliers.values = dict(state["multipliers"])
        self.step, self.seconds = state["step"], state["seconds"]
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
        _keep_until(Path(folder) / "metrics.csv", self.step)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "optimizer": self.optimizer.state_dict(),
            "banks": self.banks.state_dict(),
            "multipliers": dict(self.multipliers.values),
            "sums": dict(self._sums),
            "counts": dict(self._counts),
        }

    def noise_of(self, step: int) -> Noise:
        """The noise that fills in the characteristics of this step."""

        def noise(name: str, count: int) -> Tensor:
            characteristics = self.model.find(name).characteristics
            return torch.randn(count, characteristics, generator=stream(self.seed, "noise", name, step))

        return noise

    def _latent_noise(self, name: str, count: int) -> tuple[Tensor, Tensor]:
        source = stream(self.seed, "latent noise", name, self.step)
        if not name:
            return torch.empty(count, 0), self.model.flow.base.noise((count,), source)
        kind = self.model.find(name)
        return torch.randn(count, kind.characteristics, generator=source), kind.latent.noise((count,), source)

    def _hiding(self, observations: Observations) -> Observations:
        """The batch with its share of T hidden; over the steps the shares come to `hidden_share` exactly."""
        share, size = self.settings.hidden_share, len(observations)
        hidden = math.floor((self.step + 1) * share * size) - math.floor(self.step * share * size)
        if not hidden:
            return observations
        generator = stream(self.seed, "dreams", self.step)  # its name from before, so that runs can be repeated
        return observations.hiding(torch.randperm(size, generator=generator)[:hidden])

    def _count(self, capacity: Capacity) -> None:
        """Adds a step to the sums of the next line of the log."""
        dims = torch.Size(self.model.shape).numel()
        values = {"objective": capacity.value}
        if not capacity.prior_weight.isnan():  # as it is in a batch without any T
            values["prior_weight"] = capacity.prior_weight
        for name, rows in self.batches.sources(self.step).items():
            log_prob_T = capacity.log_prob_T[rows]
            if len(log_prob_T := log_prob_T[~log_prob_T.isnan()]):
                values[f"bits_per_dim/{name}"] = bits_per_dim(log_prob_T.mean(), dims, self.levels)
        values |= {f"inconsistency/{name}": nats for name, nats in capacity.inconsistency.items()}
        values |= {f"conditional/{name}": nats for name, nats in capacity.conditional.items()}
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + float(value.detach())
            self._counts[key] = self._counts.get(key, 0) + 1

    def _means(self, of: str) -> dict[str, float]:
        """The averages since the last line, by what is behind the slash."""
        prefix = f"{of}/"
        means = {key: total / self._counts[key] for key, total in self._sums.items() if key.startswith(prefix)}
        return {key.removeprefix(prefix): mean for key, mean in means.items()}

    def _log(self, path: Path) -> None:
        """Appends the averages since the last line; columns are of all knowledge types, whatever this line has."""
        sources = self.batches.sources(self.step)
        columns = ["step", "seconds", "learning_rate", "objective", "prior_weight"]
        columns += [f"bits_per_dim/{name}" for name in sources]
        nats = ("conditional", "inconsistency", "multiplier")
        columns += [f"{what}/{name}" for what in nats for name in self.trained]
        row: dict[str, float | int | str] = {key: total / self._counts[key] for key, total in self._sums.items()}
        row |= {f"multiplier/{name}": value for name, value in self.multipliers.values.items()}
        rate = self.settings.learning_rate * self.settings.schedule(self.step - 1)
        row |= {"step": self.step, "seconds": round(self.seconds, 2), "learning_rate": rate}
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
            if fresh:
                writer.writeheader()
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
        self._sums, self._counts = {}, {}


def _optimizer(
    groups: Sequence[dict[str, Any]], matrices: Collection[int], settings: Settings
) -> torch.optim.Adam | MuonWithAdam:
    """Adam, or Muon for the parameters whose ids are `matrices` and Adam for all others."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, betas=settings.betas, fused=True)
    rate = settings.matrix_learning_rate or settings.learning_rate
    taken = [each for group in groups for each in group["params"] if id(each) in matrices]
    if not taken:
        raise TzkError(
            "optimizer = 'muon' is for flows with networks of linear layers or convolutions; this one has none that is "
            "trained and wide enough: say optimizer = 'adam'"
        )
    others = [group | {"params": [each for each in group["params"] if id(each) not in matrices]} for group in groups]
    others = [group for group in others if group["params"]]
    return MuonWithAdam([{"params": taken, "rate": rate}], others, settings.betas)


def _idle(observations: Observations, wording: Wording) -> list[str]:
    """The knowledge types that no sample of a batch has, and none may have that takes part."""
    table = presence(observations)
    reached = (table == 1 if wording.unlabelled == "skip" else table != 0).any(1).tolist()
    return [name for name, any_sample in zip(observations.knowledge, reached, strict=True) if not any_sample]


def _groups(flows: Sequence[nn.Module], kinds: Sequence[nn.Module], settings: Settings) -> list[dict[str, Any]]:
    """What is trained, by the learning rate at which it is."""
    by_rate: dict[float, list[Tensor]] = {}
    seen: set[int] = set()
    of_flow = _rate(settings.learning_rate, settings.elementwise_rate)
    of_knowledge = _rate(*_knowledge_rates(settings, flows))
    for part, rate_of in [(flow, of_flow) for flow in flows] + [(kind, of_knowledge) for kind in kinds]:
        for module in part.modules():
            for parameter in module.parameters(recurse=False):
                if parameter.requires_grad and id(parameter) not in seen:
                    seen.add(id(parameter))
                    by_rate.setdefault(rate_of(module), []).append(parameter)
    return [{"params": parameters, "rate": rate} for rate, parameters in by_rate.items()]


def _knowledge_rates(settings: Settings, flows: Sequence[nn.Module]) -> tuple[float, float]:
    """The learning rate of knowledge, and its multiple for element-wise maps, where no flow is trained beside it."""
    rate = settings.knowledge_learning_rate or settings.learning_rate
    return rate, 1.0 if flows else settings.elementwise_rate


def _rate(rate: float, multiple: float) -> Callable[[nn.Module], float]:
    """The learning rate of the parameters of a module."""
    return lambda module: rate * (multiple if getattr(module, "elementwise", False) else 1.0)


def _keep_until(path: Path, step: int) -> None:
    """Takes the lines of a log after `step` out."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    kept = [line for line in lines if int(line[0]) <= step]
    if len(kept) < len(lines):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *kept])
