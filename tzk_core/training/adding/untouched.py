"""The check that adding knowledge changes neither what a model holds nor what it computes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.modes import evaluating

SAMPLES = 4
IMPORTANCE_SAMPLES = 8


@dataclass(frozen=True)
class Fingerprint:
    """One knowledge type, or the prior with its shared flow, at one moment.

    Nothing in it is a tensor of the model.

    state: sha256 of parameters and buffers; of the file where the knowledge type cannot be used here.
    requires_grad: of each parameter. log_prob: sha256 of log p(T given κ=1), or of log p(T), of the probes, and
        `nats`, their mean. samples: sha256 of T drawn by seed. These are None where the knowledge type cannot be used.
    """

    state: str
    requires_grad: tuple[tuple[str, bool], ...] = field(default=(), repr=False)
    log_prob: str | None = None
    nats: float | None = None
    samples: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The same knowledge type before and after."""

    before: Fingerprint
    after: Fingerprint | None

    def differences(self) -> list[str]:
        """What is not bit-identical, in words."""
        if self.after is None:
            return ["it is no longer there"]
        compared = {
            "state": "parameters or buffers",
            "requires_grad": "requires_grad flags",
            "log_prob": "log-likelihoods",
            "samples": "samples",
        }
        return [what for key, what in compared.items() if getattr(self.before, key) != getattr(self.after, key)]


PRIOR = "the prior"


def fingerprints(model: TzK, probes: Tensor, seed: int) -> dict[str | None, Fingerprint]:
    """Fingerprints by knowledge type, and under None of the prior.

    Each is evaluated by itself on `probes`, (n, *shape).

    The model is in evaluation mode meanwhile, so that no layer counts this as training.
    """
    prints: dict[str | None, Fingerprint] = {}
    names = [None, *(name for name, _ in model.named_knowledge())]
    with evaluating(model), torch.no_grad():
        for name in names:
            module = model.flow if name is None else model.find(name)
            log_prob = model.log_prob(probes, name, importance_samples=IMPORTANCE_SAMPLES, seed=seed)
            prints[name] = Fingerprint(
                _digest(module.state_dict()),
                tuple((key, parameter.requires_grad) for key, parameter in module.named_parameters()),
                _digest({"log_prob": log_prob}),
                log_prob.double().mean().item(),
                _digest({"T": model.sample(SAMPLES, name, seed=seed)}),
            )
    for name, opaque in model.opaque.items():
        prints[name] = Fingerprint(hashlib.sha256(opaque.file).hexdigest())
    return prints


def compare(
    before: dict[str | None, Fingerprint], after: dict[str | None, Fingerprint]
) -> dict[str | None, Comparison]:
    """All that was there before, beside what it is now."""
    return {name: Comparison(fingerprint, after.get(name)) for name, fingerprint in before.items()}


def check(compared: dict[str | None, Comparison]) -> None:
    """Raises `TzkError` naming the first that is not as it was."""
    for name, comparison in compared.items():
        if different := comparison.differences():
            what = PRIOR if name is None else f"knowledge type {name!r}"
            raise TzkError(
                f"{what} is not what it was before knowledge was added: {', '.join(different)} changed. "
                "Something else than the training of new knowledge has changed the model meanwhile"
            )


def _digest(tensors: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
