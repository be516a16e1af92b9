"""Every fault of a data set that the kit refuses, beside the same without it; another line is another fault."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tzk_core.data.glyphs import GlyphDigits, GlyphSigns
from tzk_core.data.protocol import Samples, check_split
from tzk_core.data.toys import Rings, TwoMoons
from tzk_core.errors import TzkError
from tzk_core.random_streams import numpy_stream
from tzk_core.testing import NotConforming, check_dataset

COUNT = 20


class Noise:
    """Small grey pictures with a class and a measure; each fault is a subclass."""

    name = "noise"
    shape: tuple[int, ...] = (1, 3, 3)
    levels: int | None = 256
    original_dims: int | None = 9

    def source(self, split: str) -> np.random.Generator:
        return numpy_stream(0, self.name, split)

    def split(self, split: str) -> Samples:
        check_split(split)
        source = self.source(split)
        T = torch.from_numpy(source.integers(256, size=(COUNT, *self.shape), dtype=np.uint8))
        labels = source.choice(["a", "b", "c"], COUNT)
        return Samples(
            T, {"label": labels}, {"measure": torch.from_numpy(source.normal(size=COUNT).astype(np.float32))}
        )

    def prepare(self, image: Tensor, name: str) -> Tensor:
        if image.shape[0] != 1:
            raise TzkError(f"{name} has {image.shape[0]} channels; grey pictures are expected: convert it")
        return image[:, :3, :3].clone()


class SetOrder(Noise):
    def split(self, split: str) -> Samples:
        samples = super().split(split)
        names = {f"drawing-{i}" for i in range(COUNT)}
        return samples.take([int(name.split("-")[1]) for name in names])


class ConstructedSetOrder(Noise):
    def __init__(self) -> None:
        self.order = [int(name) for name in {str(i) for i in range(COUNT)}]

    def split(self, split: str) -> Samples:
        return super().split(split).take(self.order)


class RandomMeasure(Noise):
    def split(self, split: str) -> Samples:
        samples = super().split(split)
        return Samples(samples.T, samples.labels, {"measure": torch.rand(COUNT, generator=fresh())})


class RandomLabels(Noise):
    def split(self, split: str) -> Samples:
        samples = super().split(split)
        return Samples(
            samples.T, {"label": np.random.default_rng().choice(list("abcdefgh"), COUNT)}, samples.characteristics
        )


class RandomConstructor(Noise):
    def __init__(self) -> None:
        self.seed = int(torch.randint(10**6, (), generator=fresh()))

    def source(self, split: str) -> np.random.Generator:
        return numpy_stream(self.seed, split)


class Infinite(Noise):
    def split(self, split: str) -> Samples:
        samples = super().split(split)
        samples.characteristics["measure"][3] = torch.inf
        return samples


class InfiniteT(Noise):
    """Real values, of which one is infinite."""

    levels = None
    original_dims = None

    def split(self, split: str) -> Samples:
        samples = super().split(split)
        T = samples.T.float()
        T[2, 0, 1, 1] = torch.inf
        return Samples(T, samples.labels, samples.characteristics)

    def prepare(self, image: Tensor, name: str) -> Tensor:
        return super().prepare(image, name).float()


class TestInValidation(Noise):
    """Right but for the validation split, which is the test split again."""

    __test__ = False  # no class of tests

    def source(self, split: str) -> np.random.Generator:
        return super().source("test" if split == "validation" else split)


class SameSplits(Noise):
    def source(self, split: str) -> np.random.Generator:
        return numpy_stream(0, self.name)


class ChangesSeed(Noise):
    def split(self, split: str) -> Samples:
        torch.manual_seed(0)
        return super().split(split)


class ChangesNumpy(Noise):
    def split(self, split: str) -> Samples:
        np.random.seed(0)
        return super().split(split)


class ChangesRandom(Noise):
    def __init__(self) -> None:
        random.seed(0)


class SharedMemory(Noise):
    def __init__(self) -> None:
        self.read = {split: super(SharedMemory, self).split(split) for split in ("train", "validation", "test")}

    def split(self, split: str) -> Samples:
        check_split(split)
        return self.read[split]


class SharedLabels(SharedMemory):
    def split(self, split: str) -> Samples:
        samples = super().split(split)
        measure = samples.characteristics["measure"].clone()
        return Samples(samples.T.clone(), samples.labels, {"measure": measure})


class PrepareRaises(Noise):
    def prepare(self, image: Tensor, name: str) -> Tensor:
        raise ValueError("no")


class PrepareShape(Noise):
    def prepare(self, image: Tensor, name: str) -> Tensor:
        return image


class PrepareFloat(Noise):
    def prepare(self, image: Tensor, name: str) -> Tensor:
        return image[:1, :3, :3] / 255


class PrepareChanges(Noise):
    def prepare(self, image: Tensor, name: str) -> Tensor:
        return image[:1, :3, :3].fill_(7)


class PrepareNameless(Noise):
    def prepare(self, image: Tensor, name: str) -> Tensor:
        raise TzkError("it has the wrong size")


class OtherError(Noise):
    def split(self, split: str) -> Samples:
        return super().split({"train": "train", "validation": "validation", "test": "test"}[split])


class NoLevels(Noise):
    def __init__(self) -> None:
        self.__dict__.pop("levels", None)

    def __getattribute__(self, key: str) -> Any:
        if key == "levels":
            raise AttributeError(key)
        return super().__getattribute__(key)


def fresh() -> torch.Generator:
    source = torch.Generator()
    source.seed()
    return source


WRONG: dict[type[Noise], str] = {
    SetOrder: "should be the same in another process; it differs in T, .* sort what a set",
    ConstructedSetOrder: "should be the same in another process",
    RandomMeasure: "should be the same each time; it differs in characteristic 'measure': derive all",
    RandomLabels: "should be the same each time; it differs in label column 'label'",
    RandomConstructor: "made again, should be the same each time",
    Infinite: "characteristic 'measure' should be finite, or nan where it is not known; 1 values are infinite",
    InfiniteT: "T should be finite|T .*infinit",
    TestInValidation: "test should have other samples than validation; 100% of them are the same: set samples aside",
    SameSplits: "test should have other samples than train; 100% of them are the same: set samples aside",
    ChangesSeed: "it changes torch: use a generator of its own",
    ChangesNumpy: "it changes numpy.random: use a generator of its own",
    ChangesRandom: "it changes random: use a generator of its own",
    SharedMemory: "samples should be the caller's own; .* return copies",
    SharedLabels: "changes label column 'label' of the next call: return copies",
    PrepareRaises: "prepare of a picture .* it raises ValueError: no. Raise TzkError, with the name of the file",
    PrepareShape: r"prepare of a picture \(1, 9, 7\) should have the shape \(1, 3, 3\)",
    PrepareFloat: "should be torch.uint8, as of what split returns; got torch.float32",
    PrepareChanges: "should leave the picture as it is; it changes it: copy it first",
    PrepareNameless: "its TzkError should name the file",
    OtherError: "should raise TzkError; it raises KeyError: begin with",
    NoLevels: "a data set has levels: see",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_data_set_is_refused(wrong: type[Noise]) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    with pytest.raises(NotConforming, match=WRONG[wrong]):
        check_dataset(wrong)


def test_a_right_data_set_passes() -> None:
    check_dataset(Noise)


@pytest.mark.parametrize("right", [TwoMoons, Rings, GlyphDigits, GlyphSigns], ids=lambda right: right.__name__)
def test_the_data_sets_of_the_core_pass(right: Any) -> None:
    """Those of one process; the other process is the slow part, and one of them stands for all."""
    made = partial(right, train=60, validation=20, test=20)
    check_dataset(made, another_process=right is GlyphDigits)


def test_few_different_observations_are_accepted_if_that_is_meant() -> None:
    check_dataset(SameSplits, overlap=1, another_process=False)


def test_what_another_process_cannot_import_is_named() -> None:
    class Local(Noise):
        pass

    with pytest.raises(NotConforming, match="cannot be pickled .* pass its class"):
        check_dataset(Local)
