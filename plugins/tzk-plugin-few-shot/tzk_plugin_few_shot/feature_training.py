"""Training of features in episodes, so that the predictive ratio is p(T given K)/p(T)."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tzk_core.errors import TzkError
from tzk_core.random_streams import stream
from tzk_core.storage import atomic
from tzk_plugin_few_shot.episodes import GROUP, Loss, episode_loss, sample_classes, sample_images
from tzk_plugin_few_shot.feature_network import FeatureNetwork

START = 0.5
"""The share of the variance between classes that every feature starts with."""


STRETCH = 1.8
"""The cosine of the rate is laid out for so many times the length of the training."""


def share_of_rate(step: int, *, steps: int) -> float:
    """The share of the rate at a step, a slow cosine.

    Over the second half, a straight line to zero is multiplied in.
    """
    return 0.5 * (1 + math.cos(math.pi * step / (STRETCH * steps))) * min(1.0, 2 * (1 - step / steps))


@dataclass(frozen=True)
class Settings:
    """Of a training of features.

    features, channels, stride, residual: of the `FeatureNetwork`. classes, drawings: of an episode. within: the share
    of episodes whose characters are of few alphabets, at the end; it rises from 0 in a straight line, for they are
    hard. rate: of Adam, which falls as `share_of_rate`. moved: the `amount` of `augmented`. presence: the weight of
    p(κ given T) beside the posterior over the classes of the episode. bfloat16: if convolutions compute in it;
    parameters, features and the loss are float32.
    """

    features: int = 64
    channels: int = 32
    stride: int = 1
    residual: bool = False
    steps: int = 1000
    classes: int = 40
    drawings: int = 5
    within: float = 0.0
    rate: float = 4e-3
    decay: float = 1e-4
    moved: float = 1.0
    presence: float = 1.0
    bfloat16: bool = False
    seed: int = 0


class Features(nn.Module):
    """A feature network and b.

    b is the share of the variance of every feature that is between classes.
    """

    def __init__(
        self, shape: tuple[int, int, int], features: int, channels: int, *, stride: int = 1, residual: bool = False
    ) -> None:
        super().__init__()
        self.network = FeatureNetwork(shape, features, channels, stride=stride, residual=residual)
        self.raw_between = nn.Parameter(torch.full((features,), START).logit())

    @property
    def between(self) -> Tensor:
        """b, (features,), in (0, 1)."""
        return self.raw_between.sigmoid()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


class FeatureTraining:
    """A training that goes on from its file where there is one.

    Episodes depend on seed and step alone. `seconds` are what all steps took of the processor, those before the file
    too.
    """

    def __init__(
        self,
        images: Tensor,
        settings: Settings,
        *,
        alphabets: Tensor | None = None,
        mask: Tensor | None = None,
        file: Path | None = None,
    ):
        """Prepare.

        Args:
            images: uint8 (characters, drawings of each, c, h, w), h = w.
            alphabets: of the characters, integers (characters,), which `within` above 0 needs.
            mask: of the pixels that the network sees, (c, h, w); None for all.
            file: of the state, written by `save` and read here.

        Raises:
            TzkError: if the images have another form, are too few, or the file is of other settings.
        """
        _check(images, settings)
        _check_alphabets(alphabets, len(images), settings)
        self.images, self.settings, self.file, self.mask = images, settings, file, mask
        self.alphabets = alphabets
        c, h, w = images.shape[2:]
        self.features = Features(
            (c, h, w), settings.features, settings.channels, stride=settings.stride, residual=settings.residual
        )
        self.features.network.initialise(stream(settings.seed, "features"))
        self.features.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.features.parameters(), settings.rate, weight_decay=settings.decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, partial(share_of_rate, steps=settings.steps))
        self.step, self.seconds = 0, 0.0
        if file is not None and file.exists():
            self._load(torch.load(file, weights_only=True), file)

    def run(self, watch: Callable[[int, Loss], None] | None = None, *, save_every: int = 250) -> Features:
        """Train to the end, and return the features in evaluation mode.

        Args:
            watch: sees every step's loss.
        """
        while self.step < self.settings.steps:
            loss = self.take_step()
            if watch is not None:
                watch(self.step, loss)
            if self.step % save_every == 0 or self.step == self.settings.steps:
                self.save()
        return self.features.eval()

    def take_step(self) -> Loss:
        """One step of Adam on one episode."""
        settings, started = self.settings, time.process_time()
        batch = self._episode()
        self.features.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            values = self.features(batch.contiguous(memory_format=torch.channels_last))
        loss = episode_loss(values.view(settings.classes, settings.drawings, -1), self.features.between)
        self.optimizer.zero_grad()
        (loss.ways + settings.presence * loss.presence).backward()
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        self.seconds += time.process_time() - started
        return Loss(loss.ways.detach(), loss.presence.detach())

    def _episode(self) -> Tensor:
        settings = self.settings
        generator = stream(settings.seed, "episode", self.step)
        within = settings.within * self.step / settings.steps
        count, drawings = settings.classes, settings.drawings
        classes = sample_classes(len(self.images), generator, classes=count, alphabets=self.alphabets, within=within)
        batch = sample_images(self.images, classes, generator, drawings=drawings, amount=settings.moved)
        return batch if self.mask is None else batch * self.mask

    def save(self) -> None:
        """Write the state to the file, if there is one."""
        if self.file is None:
            return
        written = io.BytesIO()
        position = {"step": self.step, "seconds": self.seconds}
        torch.save({"settings": asdict(self.settings), **position, **self._parts()}, written)
        atomic.write(self.file, written.getvalue())

    def _parts(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in ("features", "optimizer", "schedule")}

    def _load(self, state: dict[str, Any], file: Path) -> None:
        theirs = asdict(Settings()) | state["settings"]  # a file may be older than a setting
        if theirs != asdict(self.settings):
            raise TzkError(f"{file} is of a training with {theirs}; expected {asdict(self.settings)}")
        for name in self._parts():
            getattr(self, name).load_state_dict(state[name])
        self.step, self.seconds = state["step"], state.get("seconds", 0.0)


def _check(images: Tensor, settings: Settings) -> None:
    if images.dim() != 5 or images.dtype != torch.uint8 or images.shape[-1] != images.shape[-2]:
        got = f"{tuple(images.shape)} {images.dtype}"
        raise TzkError(f"images are expected as (characters, drawings, c, h, h) in uint8; got {got}")
    if not 2 <= settings.drawings <= images.shape[1] or not 2 <= settings.classes <= 4 * len(images):
        raise TzkError(
            f"episodes of {settings.classes} classes and {settings.drawings} drawings are expected to have at least "
            f"two of both, and no more than {4 * len(images)} turned characters and {images.shape[1]} drawings"
        )


def _check_alphabets(alphabets: Tensor | None, characters: int, settings: Settings) -> None:
    if not settings.within:
        return
    if alphabets is None or len(alphabets) != characters:
        got = "none" if alphabets is None else f"{len(alphabets)}"
        raise TzkError(f"episodes within alphabets expect an alphabet for each of {characters} characters; got {got}")
    most = int(alphabets.unique(return_counts=True)[1].clamp(max=GROUP).sum())
    if settings.classes > most:
        raise TzkError(
            f"episodes within alphabets, with at most {GROUP} characters of one, are expected to have at most {most} "
            f"classes of these alphabets; got {settings.classes}"
        )
