"""What drawings of a class say of another: the exchangeable Gaussian's predictive log-likelihood ratio.

In every dimension a class has a mean m ~ N(0, b) and samples x ~ N(m, 1 - b), so that x is N(0, 1) of a class that is
not known. The samples of a class are exchangeable (PLDA, Ioffe 2006; with a flow BRUNO, Korshunova et al. 2018).
"""

from __future__ import annotations

from torch import Tensor


def predictive(total: Tensor, count: Tensor | int, between: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the next sample of a class (Murphy 2007, section 2.3).

    Args:
        total: the sum of the class's samples, (..., d).
        count: how many they are, a number or (..., 1); 0 gives the marginal, N(0, 1).
        between: b, the share of the variance between classes, (d,) in (0, 1).

    Returns:
        (..., d) and, for a number, (d,).
    """
    within = 1 - between
    precision = count * between + within
    return between * total / precision, within * (1 + between / precision)


def log_ratio(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log p(x given the class) - log p(x) in nats, of all samples and all classes.

    Args:
        x: (n, d).
        mean: (classes, d).
        variance: (d,), or (classes, d).

    Returns:
        (n, classes).
    """
    precision = 1 / variance.expand_as(mean)
    squares = x.square() @ (1 - precision).T + 2 * x @ (mean * precision).T - (mean.square() * precision).sum(1)
    return 0.5 * (squares + precision.log().sum(1))
