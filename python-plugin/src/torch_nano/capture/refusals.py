"""Why calls without an operator cannot run on the device, and what to write instead, by ATen's name."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.call import UnsupportedNodeError

_COMPARISON = (
    "it asks whether numbers of the input are equal or finite; on the device they are rounded, and finite",
    "compare with a number: (x - y).abs() < 0.01",
)
_ORDER = (
    "it orders numbers, and the order depends on the input",
    "return the tensor itself, and order the few numbers of the result outside of the model",
)
_RANDOM = (
    "it draws random numbers, and the device computes the same for the same input",
    "return the probabilities, and draw outside of the model",
)
_SELECTION = (
    "its mask depends on the input",
    "multiply by a function of one variable, such as torch.sigmoid or F.hardsigmoid of the tensor",
)
_INDEX = (
    "it looks up elements by numbers of the input",
    "look up rows of a constant table, table[indices] or nn.Embedding, with the indices as an input",
)
_WHOLE = ("it mixes the samples of a batch", "name the dimensions of a sample, such as x.flatten(1).sum(1)")
#: ATen's name -> the reason, and what to write instead.
_REASONS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("eq", "ne", "isclose", "isfinite", "isinf", "isnan"), _COMPARISON),
    **dict.fromkeys(("argsort", "kthvalue", "median", "msort", "quantile", "sort"), _ORDER),
    **dict.fromkeys(
        ("bernoulli", "multinomial", "rand_like", "randn_like", "randint_like", "normal"), _RANDOM
    ),
    # With dimensions they are operators.
    **dict.fromkeys(("max", "mean", "min", "norm", "sum"), _WHOLE),
    **dict.fromkeys(("where", "masked_fill"), _SELECTION),
    **dict.fromkeys(("embedding_bag", "gather", "index_select"), _INDEX),
    "upsample_bicubic2d": ("it interpolates with cubic polynomials", "use mode='bilinear'"),
    "avg_pool3d": (
        "it pools over three dimensions, as nn.LocalResponseNorm does",
        "use nn.BatchNorm2d or nn.GroupNorm for a normalization, else flatten two dimensions",
    ),
    "prod": (
        "it multiplies the elements of a dimension",
        "multiply them one by one, or add their logarithms",
    ),
    "atan2": (
        "it finds the quadrant of two numbers, where the result jumps",
        "use torch.atan(y / x) where x is above 0, else return both numbers",
    ),
    "logsumexp": ("it adds up exponentials", "use x.amax(dim), which it is close to, or log_softmax"),
    **dict.fromkeys(
        ("cumsum", "cumprod", "cummax", "logcumsumexp"),
        (
            "each of its results depends on all before it",
            "use a causal convolution (F.pad before nn.Conv1d), or a matrix product with a triangular matrix",
        ),
    ),
}


def refusal(name: str) -> UnsupportedNodeError:
    """The refusal of a call that is no operator; `name` is ATen's, as "aten::gt"."""
    known = _REASONS.get(name.removeprefix("aten::").removesuffix("_"))
    return (
        UnsupportedNodeError("nano-core has no such operator")
        if known is None
        else UnsupportedNodeError(*known)
    )
