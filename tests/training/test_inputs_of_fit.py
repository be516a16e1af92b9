"""What people have, arrays, frames, data sets and loaders, trains and scores as the tensor of the same numbers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tzk_core import TzK, fit
from tzk_core.build import build_flow, build_knowledge
from tzk_core.data.disguised import are_grey_levels
from tzk_core.errors import Note, TzkError
from tzk_core.gathering import as_tensor

T = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
KAPPA = (torch.arange(64) % 2).float()
C = torch.stack([T[:, 0], KAPPA], 1)


class Frame:
    """What a pandas frame is to this package."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def to_numpy(self) -> np.ndarray:
        return self.values


class Known(Dataset[Any]):
    """T, presence and characteristics of one sample after the other."""

    def __len__(self) -> int:
        return len(T)

    def __getitem__(self, index: int) -> Any:
        return T[index], {"it": KAPPA[index]}, {"it": C[index]}


class Alone(Dataset[Tensor]):
    def __len__(self) -> int:
        return len(T)

    def __getitem__(self, index: int) -> Tensor:
        return T[index]


def model() -> TzK:
    made = TzK(build_flow((3,), steps=1))
    made.add("it", build_knowledge("gaussian", (3,), name="it", hidden=4))
    return made


def trained(*data: Any, **more: Any) -> dict[str, Tensor]:
    made = model()
    fit(made, *data, steps=2, batch_size=16, **more)
    return {name: value.clone() for name, value in made.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    "data",
    [
        T.numpy(),
        T.double().numpy(),
        T.double().numpy().astype(">f8"),
        Frame(T.numpy().astype(object)),
        Alone(),
        DataLoader(Alone(), batch_size=10),
        TensorDataset(T),
    ],
    ids=["numpy", "float64", "big-endian", "frame", "data set", "loader", "tensor data set"],
)
def test_T_may_be_what_people_have(data: Any) -> None:
    assert_same(trained(data), trained(T))


def test_knowledge_comes_beside_T_or_out_of_the_data_set() -> None:
    tensors = trained(T, {"it": KAPPA}, characteristics={"it": C})
    assert_same(trained(T.numpy(), {"it": KAPPA.numpy()}, characteristics={"it": Frame(C.numpy())}), tensors)
    assert_same(trained(Known()), tensors)
    assert_same(trained(DataLoader(Known(), batch_size=7)), tensors)


def test_validation_may_be_so_too() -> None:
    more = {"validate_every": 1}
    tensors = trained(T, {"it": KAPPA}, validation=(T[:20], {"it": KAPPA[:20]}), **more)
    arrays = (T[:20].numpy(), {"it": KAPPA[:20].numpy()})
    assert_same(trained(T, {"it": KAPPA}, validation=arrays, **more), tensors)


def test_scores_of_arrays_and_frames_are_those_of_tensors() -> None:
    made = model()
    for data in (T.double().numpy(), Frame(T.numpy())):
        for arguments in ((), ("it",)):
            assert torch.equal(made.log_prob(data, *arguments), made.log_prob(T, *arguments))
        assert torch.equal(made.posterior(data)["it"].presence, made.posterior(T)["it"].presence)


def test_what_holds_no_numbers_is_refused() -> None:
    with pytest.raises(TzkError, match="T is expected to hold numbers; .*benign.*: choose the columns of numbers"):
        as_tensor(np.array([[1.0, "benign"]], dtype=object), like=T)
    with pytest.raises(TzkError, match="an array of <U1"):
        as_tensor(np.array(["a"]), like=T)
    with pytest.raises(TzkError, match=r"got \(Tensor, Tensor\). Labels become presence"):
        fit(model(), TensorDataset(T, KAPPA), steps=1)
    with pytest.raises(TzkError, match="have the data set yield"):
        fit(model(), Known(), {"it": KAPPA}, steps=1)
    with pytest.raises(TzkError, match="yields nothing"):
        fit(model(), DataLoader(TensorDataset(T), batch_size=100, drop_last=True), steps=1)


def test_grey_levels_in_disguise_get_the_line_that_makes_them_levels() -> None:
    levels = torch.randint(0, 256, (40, 3), generator=torch.Generator().manual_seed(0))
    with pytest.warns(Note, match=r"T: these real values are grey levels.*\(255 \* T\).round\(\)"):
        fit(model(), levels / 255, steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        fit(model(), T, steps=1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (torch.arange(256) / 255, True),
        (torch.cat([torch.arange(256) / 255, torch.tensor([torch.nan])]), True),
        (torch.rand(1000, generator=torch.Generator().manual_seed(0)), False),
        ((torch.arange(256) + 0.5) / 256, False),
        (torch.tensor([0.0, 1.0, 1.0]), False),
        (torch.arange(256.0), False),
        (torch.full((4,), torch.nan), False),
    ],
    ids=["levels", "with missing", "uniform", "dequantised", "indicators", "counts", "all missing"],
)
def test_only_multiples_of_a_255th_in_the_unit_interval_are_grey_levels(values: Tensor, expected: bool) -> None:
    assert are_grey_levels(values) is expected
