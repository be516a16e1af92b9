"""The core's parts and nflows' transforms, offered by the hooks of plugins."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tzk_core.plugins.hookspecs import hookimpl
from tzk_core.plugins.loader import Builtin
from tzk_core.plugins.specs import (
    Base,
    Dataset,
    FlowLayer,
    FlowRecipe,
    KnowledgeType,
    Metric,
    Observer,
    Optimizer,
    Picture,
    Sampler,
    Schedule,
)
from tzk_core.version import DISTRIBUTION


class Core:
    """The parts of the paper's architecture, and the data sets of this package."""

    @hookimpl
    def tzk_knowledge_types(self) -> Iterable[KnowledgeType]:
        return [
            KnowledgeType(name, f"tzk_core.knowledge.{target}", summary)
            for name, target, summary in (
                ("flow", "flow:FlowKnowledge", "p(z given C): a conditional Gaussian, then flow steps"),
                ("gaussian", "gaussian:GaussianKnowledge", "p(z given C): a conditional Gaussian"),
                ("low-rank", "low_rank:LowRankKnowledge", "p(z given C): a small Gaussian for a large, multi-scale z"),
            )
        ]

    @hookimpl
    def tzk_datasets(self) -> Iterable[Dataset]:
        return [
            Dataset(name, f"tzk_core.data.{target}", summary)
            for name, target, summary in (
                ("mnist", "mnist:Mnist", "70,000 handwritten digits, 28x28 or resized"),
                ("folder", "folder:Folder", "your own folder of images, subfolders as labels"),
                ("npz", "npz:Npz", "your own arrays of any fixed shape, labels and characteristics"),
                ("glyph-digits", "glyphs:GlyphDigits", "drawn digits, 16x16, made in code"),
                (
                    "glyph-letters",
                    "glyphs:GlyphLetters",
                    "letters of an invented alphabet, 16x16, made in code",
                ),
                ("glyph-signs", "glyphs:GlyphSigns", "five signs, 16x16, made in code"),
                ("two-moons", "toys:TwoMoons", "two crescents in the plane"),
                ("rings", "toys:Rings", "concentric rings in the plane"),
            )
        ]

    @hookimpl
    def tzk_flow_layers(self) -> Iterable[FlowLayer]:
        return [
            FlowLayer(name, f"tzk_core.transforms.{target}", summary)
            for name, target, summary in (
                ("symlog", "symlog:SymLog", "sign(x) log(|x| + 1), the paper's non-linearity"),
                (
                    "tiled-convolution",
                    "tiled_convolution:TiledConvolution",
                    "one invertible matrix for every tile",
                ),
                ("affine", "affine:Affine", "a learned scale and shift of each element"),
                ("squeeze", "squeeze:Squeeze", "space to channels, so that tiles take turns"),
                ("unsqueeze", "squeeze:Unsqueeze", "channels to space, the inverse of squeeze"),
                ("logit", "logit:Logit", "from (0, 1) to the reals, as in Real NVP"),
                ("standardise", "standardise:Standardise", "onto the real line, then to mean 0 and deviation 1"),
                ("flatten", "reshape:Flatten", "any shape to one dimension"),
            )
        ]

    @hookimpl
    def tzk_flow_recipes(self) -> Iterable[FlowRecipe]:
        summary = "steps of tiled convolution, affine and SymLog (Livne & Fleet 2018)"
        return [FlowRecipe("paper", "tzk_core.recipes.paper:paper", summary)]

    @hookimpl
    def tzk_metrics(self) -> Iterable[Metric]:
        summary = "accuracies of partitions and of finite C; results always have it"
        return [Metric("classification", "tzk_core.evaluation.classification:Classification", summary)]

    @hookimpl
    def tzk_optimizers(self) -> Iterable[Optimizer]:
        return [Optimizer("adam", "tzk_core.training.optimizers:Adam", "Adam (Kingma & Ba 2015), fused")]

    @hookimpl
    def tzk_schedules(self) -> Iterable[Schedule]:
        return [
            Schedule("cosine", "tzk_core.training.schedules:cosine", "falls to zero along half a cosine"),
            Schedule("constant", "tzk_core.training.schedules:constant", "the full rate at every step"),
        ]

    @hookimpl
    def tzk_bases(self) -> Iterable[Base]:
        return [
            Base("gaussian", "tzk_core.distributions.standard:StandardGaussian", "N(0, I)"),
            Base("logistic", "tzk_core.distributions.standard:StandardLogistic", "a product of logistics (NICE)"),
        ]

    @hookimpl
    def tzk_samplers(self) -> Iterable[Sampler]:
        return [
            Sampler("smc", "tzk_core.model.samplers:SequentialMonteCarlo", "tempered, resampled and moved particles"),
            Sampler("rejection", "tzk_core.model.samplers:Rejection", "exact and independent samples, many tries"),
        ]

    @hookimpl
    def tzk_observers(self) -> Iterable[Observer]:
        return [
            Observer(name, f"tzk_core.training.{target}", summary)
            for name, target, summary in (
                (
                    "early-stopping",
                    "stopping:EarlyStopping",
                    "ends a training without a better validation; by patience",
                ),
                ("metrics-csv", "metrics:MetricsFile", "the log in metrics.csv; every run has it"),
                ("progress", "progress:ProgressLine", "a bar or lines; without --quiet, or by fit(progress=True)"),
            )
        ]

    @hookimpl
    def tzk_pictures(self) -> Iterable[Picture]:
        return [
            Picture(name, f"tzk_core.report.pictures:{target}", summary)
            for name, target, summary in (
                ("samples", "samples", "samples of the prior and of every knowledge type"),
                ("reconstructions", "reconstructions", "test data beside what C alone keeps of them"),
                ("plane-of-c", "planes", "observations over the plane of C, where it has two characteristics"),
            )
        ]


class Nflows:
    """The transforms of nflows 0.14 that invert and have the right log-determinant.

    Tests check the laws of every transform, and that every class of nflows is here or in `LEFT_OUT`.
    """

    @hookimpl
    def tzk_flow_layers(self) -> Iterable[FlowLayer]:
        return [
            FlowLayer(registered_name(class_name), f"nflows.transforms.{module}:{class_name}", f"nflows: {summary}")
            for module, class_name, summary in TRANSFORMS
        ]


def registered_name(class_name: str) -> str:
    """The registered name of an nflows class, in kebab-case: "lu-linear" for "LULinear"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", class_name).lower()


TRANSFORMS: tuple[tuple[str, str, str], ...] = (
    ("base", "CompositeTransform", "several transforms in sequence"),
    ("base", "InverseTransform", "another transform, inverted"),
    ("standard", "IdentityTransform", "x -> x"),
    ("standard", "PointwiseAffineTransform", "a fixed scale and shift"),
    ("reshape", "SqueezeTransform", "blocks of space to channels; an even factor"),
    ("permutations", "Permutation", "a fixed order of features or channels"),
    ("permutations", "RandomPermutation", "a random, fixed order of features or channels"),
    ("permutations", "ReversePermutation", "features or channels in reverse"),
    ("lu", "LULinear", "a matrix as LU factors"),
    ("qr", "QRLinear", "a matrix as Householder reflections and a triangle"),
    ("svd", "SVDLinear", "a matrix by its singular value decomposition"),
    ("orthogonal", "HouseholderSequence", "an orthogonal matrix as Householder reflections"),
    ("conv", "OneByOneConvolution", "an invertible 1x1 convolution (Glow)"),
    ("normalization", "BatchNorm", "batch normalisation of vectors; inverts in eval mode only"),
    ("nonlinearities", "Tanh", "tanh(x)"),
    ("nonlinearities", "LogTanh", "tanh(x) with logarithmic tails"),
    ("nonlinearities", "Sigmoid", "1 / (1 + exp(-x)); on a GPU with learn_temperature only"),
    ("nonlinearities", "CauchyCDF", "the Cauchy distribution function"),
    ("nonlinearities", "CauchyCDFInverse", "the Cauchy quantile function"),
    ("nonlinearities", "CompositeCDFTransform", "squash, transform in (0, 1), un-squash"),
    ("nonlinearities", "PiecewiseLinearCDF", "a linear spline for each element"),
    ("nonlinearities", "PiecewiseQuadraticCDF", "a quadratic spline for each element"),
    ("nonlinearities", "PiecewiseCubicCDF", "a cubic spline for each element"),
    ("nonlinearities", "PiecewiseRationalQuadraticCDF", "a rational-quadratic spline for each element"),
    ("coupling", "AdditiveCouplingTransform", "additive coupling (NICE)"),
    ("coupling", "AffineCouplingTransform", "affine coupling (Real NVP)"),
    ("coupling", "PiecewiseLinearCouplingTransform", "coupling by linear splines"),
    ("coupling", "PiecewiseQuadraticCouplingTransform", "coupling by quadratic splines"),
    ("coupling", "PiecewiseCubicCouplingTransform", "coupling by cubic splines"),
    ("coupling", "PiecewiseRationalQuadraticCouplingTransform", "coupling by rational-quadratic splines"),
    ("autoregressive", "MaskedAffineAutoregressiveTransform", "masked autoregressive flow (MAF)"),
    ("autoregressive", "MaskedPiecewiseLinearAutoregressiveTransform", "MAF of linear splines"),
    ("autoregressive", "MaskedPiecewiseQuadraticAutoregressiveTransform", "MAF of quadratic splines"),
    ("autoregressive", "MaskedPiecewiseCubicAutoregressiveTransform", "MAF of cubic splines"),
    ("autoregressive", "MaskedPiecewiseRationalQuadraticAutoregressiveTransform", "MAF of rational splines"),
)
"""The module of nflows.transforms, the class and its summary."""

LEFT_OUT: dict[str, str] = {
    "NaiveLinear": "needs torch.qr and torch.solve, which torch has removed: use 'lu-linear'",
    "ActNorm": "gives nan on constant channels and on batches of one: use 'affine'",
    "LeakyReLU": "computes its log-determinant in float32 on the CPU, whatever its input: use 'symlog'",
    "Logit": "leaves its temperature behind when a model moves to a GPU: use the core's 'logit'",
    "GatedLinearUnit": "gives a log-determinant of the wrong shape: use 'affine-coupling-transform'",
    "MultiscaleCompositeTransform": "is not complete after construction: build it in a flow recipe",
    "AffineTransform": "is deprecated: use 'affine', or 'pointwise-affine-transform' for a fixed one",
}
"""Transforms of nflows that are not offered, and the reason."""

CORE, NFLOWS = Core(), Nflows()
BUILTIN = {"tzk": Builtin(DISTRIBUTION, CORE), "nflows": Builtin("nflows", NFLOWS)}
"""Built-in plugins, by name."""
