"""Knowledge by name: a ModuleDict that finds what it holds, and follows `implies` to its end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import small

from tzk_core.build import build_knowledge
from tzk_core.errors import TzkError
from tzk_core.knowledge.collection import KnowledgeDict
from tzk_core.model import TzK


def nested() -> TzK:
    """k0 in k1, k1 in k2, k3 in k1 and in something that was removed, k4 by itself."""
    model = small(["gaussian"] * 5)
    for name, implies in {"k0": ("k1",), "k1": ("k2",), "k3": ("k1", "gone")}.items():
        model.find(name).describe_as(implies=implies)
    return model


def test_implications_are_followed_to_their_end() -> None:
    assert nested().knowledge.implied_by("k0") == {"k1", "k2"}
    assert nested().knowledge.implied_by("k3") == {"k1", "k2", "gone"}
    assert nested().knowledge.implied_by("k4") == set()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["k2", "k0", "k1"], ["k0"]),
        (["k2", "k4"], ["k2", "k4"]),
        (["k0", "k3", "k1", "k0"], ["k0", "k3"]),
        ([], []),
    ],
)
def test_the_most_specific_are_those_that_no_other_implies(names: list[str], expected: list[str]) -> None:
    assert nested().knowledge.most_specific(names) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["k2", "k0", "k1"], ["k2"]),
        (["k4", "k2", "k4"], ["k4", "k2"]),
        (["k0", "k3"], ["k0", "k3"]),
        (["k0", "k3", "k1"], ["k1"]),
        ([], []),
    ],
)
def test_the_least_specific_are_those_that_imply_no_other(names: list[str], expected: list[str]) -> None:
    assert nested().knowledge.least_specific(names) == expected


def test_a_circle_ends() -> None:
    model = nested()
    model.find("k2").describe_as(implies=("k0",))
    assert model.knowledge.implied_by("k0") == {"k0", "k1", "k2"}


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(TzkError, match="no knowledge type 'k9'"):
        nested().knowledge.most_specific(["k9"])


def test_it_stands_alone_without_a_model() -> None:
    """Knowledge that is to be added to a model is asked beside the model's own, which nothing is added to."""
    model, new = nested(), build_knowledge("gaussian", (3,))
    new.describe_as(implies=["k0"])
    everything = KnowledgeDict({**dict(model.named_knowledge()), "new": new})
    assert everything.implied_by("new") == {"k0", "k1", "k2"}
    assert everything.find("k0") is model.find("k0") and "new" not in model.knowledge


def test_its_state_is_that_of_a_module_dict() -> None:
    """Checkpoints hold these keys."""
    model = small(["gaussian", "flow"])
    plain = torch.nn.ModuleDict(dict(model.named_knowledge()))
    state = {f"knowledge.{key}": value for key, value in plain.state_dict().items()}
    actual = {key: value for key, value in model.state_dict().items() if key.startswith("knowledge.")}
    assert list(actual) == list(state) and all(torch.equal(actual[key], state[key]) for key in state)


def test_a_description_says_again_only_what_it_names() -> None:
    knowledge = build_knowledge("gaussian", (3,))
    part = knowledge.part
    assert part is not None and part.name == "gaussian" and knowledge.implies == ()
    knowledge.describe_as(implies=["whole"])
    assert (knowledge.part, knowledge.implies) == (part, ("whole",))
    knowledge.describe_as(part=part)
    assert knowledge.implies == ("whole",)
    knowledge.describe_as(implies=())
    assert knowledge.implies == ()


@pytest.mark.parametrize(("name", "value"), [("implies", ["whole"]), ("part", None)])
def test_assigning_what_describe_as_sets_still_works_with_a_warning(name: str, value: Any) -> None:
    knowledge = build_knowledge("gaussian", (3,))
    with pytest.warns(FutureWarning, match=rf"describe_as\({name}=\.\.\.\)") as caught:
        setattr(knowledge, name, value)
    assert caught[0].filename == __file__
    assert getattr(knowledge, name) == (("whole",) if name == "implies" else None)
