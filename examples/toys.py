# %% [markdown]
# TzK from Python, without a config: two data sets in the plane, one flow for both, and six things to know of a point.
#
#     python examples/toys.py [--steps 800] [--plot examples/toys.png]
#
# Runs in less than a minute on two cores, as a script or cell by cell as a notebook.

# %%
import argparse
import tempfile
from pathlib import Path

import torch
from matplotlib import pyplot

import tzk_core
from tzk_core.data.toys import Rings, TwoMoons

parser = argparse.ArgumentParser(description="TzK on two moons and rings.")
parser.add_argument("--steps", type=int, default=800, help="length of the training (default: %(default)s)")
parser.add_argument("--plot", type=Path, help="where to save the picture, a PNG")
options, _ = parser.parse_known_args()  # in a notebook the rest of the line is Jupyter's
if options.steps < 0:
    parser.error(f"--steps is expected to be at least 0; got {options.steps}")

# %% [markdown]
# ## Data
# Any tensors will do: T, and for each knowledge type its presence, 1 where it is present, 0 where it is absent, nan
# where it is unknown. Here two knowledge types tell the data sets apart, which lie side by side, and four the curves
# that these consist of.

# %%
datasets = {"moons": TwoMoons(train=5000, noise=0.06), "rings": Rings(train=5000, noise=0.06)}
places = {"moons": torch.tensor([-1.4, 0.0]), "rings": torch.tensor([1.4, 0.0])}
names = {"moons": "two moons", "rings": "rings", "upper": "upper moon", "lower": "lower moon"}
names |= {"inner": "inner ring", "outer": "outer ring"}


def observe(split: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """T, (n, 2), of both data sets, and by knowledge type its presence, (n,)."""
    parts = {name: data.split(split) for name, data in datasets.items()}
    T = torch.cat([part.T + places[name] for name, part in parts.items()])
    known = [{name, label} for name, part in parts.items() for label in part.labels["label"]]
    return T, {name: torch.tensor([float(name in present) for present in known]) for name in names}


T, presence = observe("train")

# %% [markdown]
# ## A model
# The shared flow takes points to a Gaussian latent z. Its layers are named as `tzk plugins` lists them, with the
# arguments of their constructors: here six of nflows' rational-quadratic couplings.

# %%
net = dict(callable="nflows.nn.nets:ResidualNet", hidden_features=32, num_blocks=1)
coupling = dict(type="piecewise-rational-quadratic-coupling-transform", transform_net_create_fn=net)
spline = dict(num_bins=8, tails="linear", tail_bound=4.0)
couplings = [dict(**coupling, **spline, mask=[step % 2, 1 - step % 2]) for step in range(6)]
flow = tzk_core.build_flow((2,), layers=[dict(type="affine"), *couplings])

# %% [markdown]
# A knowledge type holds a density of z given its characteristics C, an encoder of C and a discriminator. `gaussian`
# takes C to the mean and variance of a Gaussian: over all C an infinite mixture, enough for two dimensions.

# %%
model = tzk_core.TzK(flow)
for name in names:
    model.add(name, tzk_core.build_knowledge("gaussian", model.latent_shape, name=name))

# %% [markdown]
# ## Training
# C is not observed here, so that it is filled in from its encoder. `tolerance` is how many nats encoder and decoder of
# a knowledge type may disagree by before its multiplier grows.

# %%
history = tzk_core.fit(model, T, presence, steps=options.steps, learning_rate=5e-3, tolerance=0.5)
print("multipliers:", ", ".join(f"{name} {value:.2f}" for name, value in history.trainer.multipliers.values.items()))

# %% [markdown]
# ## What a model answers
# Log-densities, in nats: log p(T), and log p(T given κ=1) of a knowledge type, which is an integral over C.

# %%
held_out, known = observe("test")
with torch.no_grad():
    print(f"log p(T) on test data: {model.log_prob(held_out).mean():.3f}")
    for name, title in names.items():
        points = held_out[known[name] == 1]
        prior, conditional = model.log_prob(points).mean(), model.log_prob(points, knowledge=name).mean()
        print(f"  {title:<10} {conditional:6.3f} given {name}, {prior:6.3f} without")

# %% [markdown]
# The posteriors of all knowledge types at a point, which is encoded once.

# %%
points = torch.tensor([[-1.9, 0.75], [1.4, 1.75], [2.15, 0.0]])
posterior = model.posterior(points)
for row, (first, second) in enumerate(points.tolist()):
    shares = [f"{name} {beliefs.presence[row]:.2f}" for name, beliefs in posterior.items()]
    print(f"({first:.2f}, {second:.2f}):", ", ".join(shares))
z = model.encode(points)
print(f"decoded again, these points move by {(model.decode(z) - points).abs().max():.0e} at most")

# %% [markdown]
# A conditional is a distribution as nflows has them: `sample` and `log_prob`, with C as the context or without.

# %%
outer = model.conditional("outer")
print(f"radius of the outer ring: {(outer.sample(1000) - places['rings']).norm(dim=1).median():.2f}")
C = posterior["outer"].mean  # (3, 2)
print(f"samples given the C of each point: {tuple(outer.sample(100, context=C).shape)}, with log-densities")
print(outer.log_prob(points, context=C).detach())

# %% [markdown]
# ## Saved and opened again
# A folder with one file for the flow and one for each knowledge type.

# %%
with tempfile.TemporaryDirectory() as folder:
    tzk_core.save(model, Path(folder) / "toys")
    again = tzk_core.load(Path(folder) / "toys")
assert torch.equal(again.sample(5, "rings", seed=1), model.sample(5, "rings", seed=1))

# %% [markdown]
# ## A picture
# Densities in blue, samples as dots.

# %%
x, y = torch.linspace(-3.2, 3.5, 161), torch.linspace(-2.2, 2.2, 107)
plane = torch.cartesian_prod(x, y)
pictures: list[tuple[str, str | None, torch.Tensor]]
pictures = [("the data", None, T[::4]), ("p(T)", None, model.sample(600, seed=0))]
pictures += [(f"p(T | {title})", name, model.sample(300, name, seed=0)) for name, title in names.items()]
figure, panels = pyplot.subplots(2, 4, figsize=(13, 4.6), layout="constrained")
for axes, (title, knowledge, dots) in zip(panels.flat, pictures, strict=True):
    if title != "the data":
        with torch.no_grad():
            density = model.log_prob(plane, knowledge, importance_samples=32).exp().view(len(x), len(y)).T
        extent = (-3.2, 3.5, -2.2, 2.2)
        axes.imshow(density, extent=extent, origin="lower", cmap="Blues", vmax=density.quantile(0.995))
    axes.scatter(*dots.T, s=3, color="#D55E00", linewidths=0, alpha=0.7)
    axes.set(title=title, xlim=(-3.2, 3.5), ylim=(-2.2, 2.2), aspect="equal", xticks=[], yticks=[])
if options.plot:
    figure.savefig(options.plot, dpi=100)
