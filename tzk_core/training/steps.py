"""The steps of a training: Eq. 5 of a batch, its gradient, and the updates.

Parameters and multipliers are updated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.modes import flushing_denormals, training
from tzk_core.objective import (
    Capacity,
    Multipliers,
    Noise,
    Objective,
    mental_capacity,
    sampled_absences,
)
from tzk_core.objective.extra import terms_of
from tzk_core.objective.filling import REFERENCE, Filling
from tzk_core.objective.owned import check_given
from tzk_core.objective.routing import idle
from tzk_core.objective.shard import Shard
from tzk_core.objective.terms import terms
from tzk_core.observations import Observations
from tzk_core.random_streams import seeded, stream
from tzk_core.training.batches import Batches
from tzk_core.training.counting import counted
from tzk_core.training.divided import Divided
from tzk_core.training.metrics import Metrics
from tzk_core.training.optimizers import Trained, optimizer_of, trains_knowledge_by_adam
from tzk_core.training.parameter_groups import knowledge_rates, parameter_groups, rate_for
from tzk_core.training.parameter_tables import ParameterTables
from tzk_core.training.precision import MixedPrecision
from tzk_core.training.reduction import checked_cut, norm_of, reduced, shard_of
from tzk_core.training.schedules import shares_of
from tzk_core.training.settings import Settings
from tzk_core.training.sharding import check_observed
from tzk_core.training.soundness import Diverged
from tzk_core.training.validation import Validation, Watch
from tzk_core.world import ALONE, World

if TYPE_CHECKING:
    from tzk_core.objective.compiled import CompiledSteps, CompiledTerms


class Steps(Divided):
    """Takes steps of training on a model, in place.

    The state after a step depends on model, batches, settings and seed only. The model is in evaluation mode but within
    a step, in which a shared flow that is trained is in training mode.

    `levels`: grey levels of the data, for the bits in the log; None for real-valued data. `trained`: the knowledge
    types that are trained, all else being held as it is, the shared flow included; None trains everything.

    `validation`: what a `Trainer` evaluates the model on now and then; `watch` has what came of it.

    `world`: the processes that take the steps together, each with a shard of every batch. The state after a step is the
    same in all of them, and to rounding that of one process. Each is to have all the other arguments.

    `compile_seconds`: of the steps in which something was compiled, `compile_steps` in number.
    """

    def __init__(
        self,
        model: TzK,
        batches: Batches,
        settings: Settings,
        *,
        seed: int = 0,
        levels: int | None = 256,
        trained: Sequence[str] | None = None,
        validation: Validation | None = None,
        world: World = ALONE,
    ) -> None:
        self.world = world
        self.model, self.batches, self.settings, self.seed, self.levels = model, batches, settings, seed, levels
        self.fixed_flow = trained is not None
        self.trained = tuple(name for name, _ in model.named_knowledge()) if trained is None else tuple(trained)
        check_given(settings.owners, self.trained)
        self.step = 0
        self.watch = Watch(validation, settings.validate_every)
        self.multipliers = Multipliers(
            dict.fromkeys(self.trained, settings.multiplier),
            settings.tolerance,
            settings.multiplier_rate,
            settings.multiplier_max,
        )
        flows = [] if self.fixed_flow else [model.flow]
        self.rate_share = shares_of(settings)
        members = {name: model.find(name) for name in self.trained}
        self.terms = terms_of(settings.terms)
        tabled = members if trains_knowledge_by_adam(settings) and not self.terms else {}  # terms reach the modules
        self.parameter_tables = ParameterTables(tabled, rate_for(*knowledge_rates(settings, flows)), settings.betas)
        alone = [member for name, member in members.items() if name not in self.parameter_tables.names]
        groups = parameter_groups(flows, alone, settings)
        parts: list[nn.Module] = [*flows, *members.values()]
        trained_parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
        if not trained_parameters:
            raise TzkError("nothing to train: this model has no parameter that requires a gradient")
        self._like = trained_parameters[0]
        if not groups:  # all are in tables, and torch wants a group
            groups = [{"params": [], "rate": settings.learning_rate}]
        self.optimizer = optimizer_of(Trained(groups, flows, settings.learning_rate, settings.betas), settings)
        self.metrics = Metrics()
        self._mixed = self._mixed_precision()
        self._compiled = self._compile()
        self._filling: Filling | None = None  # made of the first batch in which a part of T is missing
        self.compile_seconds, self.compile_steps = 0.0, 0
        model.eval()
        self._cut = False
        self._counted: list[Tensor] | None = None  # after the first step, the flow's buffers that a step changes

    def advance(self) -> Capacity:
        """Take one step.

        Raises:
            Diverged: if the objective or its gradient is not finite; the model is then as before.
        """
        with flushing_denormals(), self._training():
            return self._advance()

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Within the block, a shared flow that is trained is in training mode.

        What it samples, as dropout does, is of this step. What its layers count, as batch normalisation does, is as
        before if the step fails.
        """
        if self.fixed_flow:
            yield
            return
        flow, first = self.model.flow, self._counted is None
        before = [(buffer, buffer.clone()) for buffer in (flow.buffers() if first else self._counted or ())]
        try:
            with training(flow), seeded(self.seed, "step", self.step):
                yield
        except BaseException:
            for buffer, value in before:
                buffer.copy_(value)
            raise
        if first:  # by value: torch's own batch normalisation leaves `_version` as it is
            self._counted = [buffer for buffer, value in before if not torch.equal(buffer, value)]

    def _advance(self) -> Capacity:
        observations = self._batch()
        shard = self._shard_of(observations)
        evaluate = partial(self._evaluate, observations, shard)
        capacity = self._mixed(evaluate, self.model.flow, self.model.shape) if self._mixed else evaluate()
        self.optimizer.zero_grad(set_to_none=True)
        self._differentiate(-capacity.value / observations.T[0].numel() * (shard.share if shard else 1))
        own = list(self.sharded.take_gradients()) if self.sharded else []
        shared = self._shared()
        if shard:
            capacity = reduced(
                self.world,
                shard,
                capacity,
                missing=observations.missing(),
                parameters=shared,
                tables=self.parameter_tables,
            )
        if self._compiled:
            self._compiled.clear_idle(self.model, idle(observations, self.settings.wording))
        gradients = [parameter.grad for parameter in shared if parameter.grad is not None]
        own += self._owned.gradients() if self._owned else []
        (own if self.parameter_tables.divided else gradients).extend(self.parameter_tables.gradients())
        norm = norm_of(self.world, gradients, own if self.divided else None)
        gradients += own
        if not torch.isfinite(norm) or not torch.isfinite(capacity.value):
            raise Diverged(self.step, f"objective {capacity.value.item()}, gradient norm {norm.item()}")
        if self.settings.clip is not None and norm > self.settings.clip:
            for gradient in gradients:
                gradient.mul_(self.settings.clip / norm)
        share = self.rate_share(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * share
        self.optimizer.step()
        self.parameter_tables.step(share)
        self.multipliers.ascend(capacity.inconsistency)
        self._count(capacity, observations)
        self.step += 1
        return capacity

    def _differentiate(self, loss: Tensor) -> None:
        if loss.requires_grad or not self.owners:  # a process may own nothing that a batch has
            loss.backward()

    def _batch(self) -> Observations:
        """The batch of this step, with what is hidden and what is filled in."""
        observations = self._hiding(self.batches.batch(self.step)).to(self._like.device, self._like.dtype)
        if self.sharded:
            check_observed(observations)
        if self.owners and observations.T.isnan().any():  # which is sampled from knowledge types of all owners
            self.unite()
        return self._complete(observations)

    def _evaluate(self, observations: Observations, shard: Shard | None) -> Capacity:
        """Eq. 5 of the batch of this step."""
        self.parameter_tables.forget()
        return mental_capacity(
            self.model,
            observations,
            self.noise_of(self.step),
            multipliers=self.multipliers.values,
            latent_noise=self._latent_noise,
            objective=self._objective(shard),
        )

    def _shard_of(self, observations: Observations) -> Shard | None:
        """The part of a batch that this process evaluates; None for all of it."""
        shard = shard_of(self.world, len(observations))
        if shard and not self._cut:
            self._cut = checked_cut(self.model.flow, observations, self.world.size)
        return shard

    def _objective(self, shard: Shard | None) -> Objective:
        """The objective at this step, of a shard of its batch."""
        generator = stream(self.seed, "absences", self.step)
        return Objective(
            wording=self.settings.wording,
            emphasis=self.settings.emphasis,
            kl_weight=self.settings.kl_weight(self.step),
            fixed_flow=self.fixed_flow,
            absences=partial(sampled_absences, most=self.settings.negatives, generator=generator),
            stacks=self.parameter_tables,
            evaluator=self._compiled or terms,
            terms=self.terms,
            shard=shard,
            owners=self.owners,
        )

    @property
    def compilation(self) -> dict[str, Any] | None:
        """The outcome of compiling, for the record of a run.

        Returns:
            The seconds of the steps in which something was compiled, or why nothing could be; None if nothing was to
                be.
        """
        if self._compiled is None:
            return None
        if self._compiled.failure is not None:
            return {"failure": self._compiled.failure}
        return {"seconds": round(self.compile_seconds, 3), "steps": self.compile_steps}

    def _mixed_precision(self) -> MixedPrecision | None:
        if self.settings.mixed_precision is None:
            return None
        if self.world.size > 1:
            raise TzkError("mixed_precision is for one process: leave it out")
        return MixedPrecision(self.settings.mixed_precision, self._like)

    def _compile(self) -> CompiledTerms | CompiledSteps | None:
        steps, device = self.settings.compile == "steps", self._like.device.type
        if self.world.size > 1:
            if steps or self.settings.compile is True:
                raise TzkError('compile = true is for one process: write compile = false, or "auto"')
            return None
        if not steps and not self.settings.compiles(device, len(self.model.knowledge)):
            return None
        from tzk_core.objective.compiled import CompiledSteps, CompiledTerms  # the compiler takes a second to import

        return CompiledSteps(device) if steps else CompiledTerms(required=self.settings.compile is True)

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
        knowledge = self.model.find(name)
        C_noise = torch.randn(count, knowledge.characteristics, generator=source)
        return C_noise, knowledge.latent.noise((count,), source)

    def _hiding(self, observations: Observations) -> Observations:
        """The batch with its share of T hidden.

        Over the steps the shares come to `hidden_share` exactly.
        """
        share, size = self.settings.hidden_share, len(observations)
        hidden = math.floor((self.step + 1) * share * size) - math.floor(self.step * share * size)
        if not hidden:
            return observations
        generator = stream(self.seed, "dreams", self.step)  # its name from before, so that runs can be repeated
        return observations.hiding(torch.randperm(size, generator=generator)[:hidden])

    def _complete(self, observations: Observations) -> Observations:
        """The batch with single missing values of T filled in.

        The proposals are made of the first batches.
        """
        if observations.partly_missing() is None:
            return observations
        if self._filling is None:
            batches = math.ceil(REFERENCE / len(observations))
            reference = torch.cat([self.batches.batch(step).T for step in range(batches)])
            self._filling = Filling(self.model, reference, stream(self.seed, "reference"))
        return self._filling.complete(observations, stream(self.seed, "missing", self.step))

    def _count(self, capacity: Capacity, observations: Observations) -> None:
        """Adds a step to the sums of the next line of the log."""
        dims, sources = torch.Size(self.model.shape).numel(), self.batches.sources(self.step)
        self.metrics.add(counted(capacity, observations, sources, dims=dims, levels=self.levels))
