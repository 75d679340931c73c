"""Why calls without an operator cannot run on the device, and what to write instead, by ATen's name."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from ..ir.call import UnsupportedNodeError
from .batch_layout import BatchLayout

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
_COMPLEX = (
    "it computes complex numbers",
    "multiply by matrices of cosines and sines: (x @ c).square() + (x @ s).square() is the power spectrum",
)
_THREE_DIMENSIONS = (
    "it works on three dimensions besides the channels",
    "join two of them, x.flatten(2, 3), and use the module for two dimensions",
)
_EQUATIONS = (
    "it solves equations whose coefficients depend on the input",
    "return the coefficients, and solve outside of the model",
)
FAKE_QUANTIZATION = (
    "it rounds as another device would",
    "give the model in float; torch_nano.prepare_qat trains it with this device's rounding",
)
_WRITE = (
    "it writes into a part of a tensor that is no slice, or at indices that the input gives",
    "write into slices, y[:, 2:5] = x, or at one list of indices, y[:, [0, 2]] = x, or join with torch.cat",
)
_WHOLE = ("it mixes the samples of a batch", "name the dimensions of a sample, such as x.flatten(1).sum(1)")
#: ATen's name -> the reason, and what to write instead.
_REASONS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("eq", "ne", "isclose", "isfinite", "isinf", "isnan"), _COMPARISON),
    **dict.fromkeys(("argsort", "kthvalue", "median", "msort", "quantile", "sort"), _ORDER),
    **dict.fromkeys(
        (
            "bernoulli",
            "exponential",
            "multinomial",
            "normal",
            "rand",
            "rand_like",
            "randint_like",
            "randn",
            "randn_like",
            "uniform",
        ),
        _RANDOM,
    ),
    # With dimensions they are operators.
    **dict.fromkeys(("max", "mean", "min", "norm", "sum"), _WHOLE),
    **dict.fromkeys(("where", "masked_fill"), _SELECTION),
    **dict.fromkeys(("embedding_bag", "gather", "index_select"), _INDEX),
    **dict.fromkeys(("fft_fft", "fft_fft2", "fft_irfft", "fft_rfft", "fft_rfft2", "stft"), _COMPLEX),
    **dict.fromkeys(
        (
            "adaptive_avg_pool3d",
            "adaptive_max_pool3d",
            "conv3d",
            "conv_transpose3d",
            "max_pool3d",
            "max_pool3d_with_indices",
        ),
        _THREE_DIMENSIONS,
    ),
    **dict.fromkeys(
        ("linalg_cholesky", "linalg_det", "linalg_eigh", "linalg_inv", "linalg_solve", "linalg_svd"),
        _EQUATIONS,
    ),
    **dict.fromkeys(
        (
            "fake_quantize_per_channel_affine",
            "fake_quantize_per_tensor_affine",
            "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
            "fused_moving_avg_obs_fake_quant",
        ),
        FAKE_QUANTIZATION,
    ),
    **dict.fromkeys(("diagonal_scatter", "scatter", "scatter_add"), _WRITE),
    **dict.fromkeys(
        ("squeeze", "swapaxes", "swapdims", "t", "transpose", "unsqueeze"),
        (
            "it changes the shape of a tensor in place",
            "use the call that is not in place, x = x.unsqueeze(1)",
        ),
    ),
    "_upsample_bilinear2d_aa": ("it smooths before it interpolates", "use antialias=False"),
    "wrap_with_autocast": (
        "it computes in another dtype (torch.autocast)",
        "leave torch.autocast out of forward, and put it around the training step",
    ),
    "cdist": (
        "it computes the distances of all pairs",
        "x.square().sum(1, keepdim=True) - 2 * x @ p.T + p.square().sum(1) are their squares, p constant",
    ),
    "fractional_max_pool2d": ("its windows are random", "use nn.MaxPool2d or nn.AdaptiveMaxPool2d"),
    "grid_sampler": (
        "it reads at positions that are computed",
        "use F.interpolate, slices, flip or rot90",
    ),
    "max_pool2d_with_indices": (
        "its indices are read",
        "use nn.MaxPool2d, and nn.Upsample or nn.ConvTranspose2d in place of nn.MaxUnpool2d",
    ),
    "pow": (
        "its exponent is a tensor",
        "make the exponent a number, or write torch.exp(p * torch.log(x)), p constant",
    ),
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


def refusal_of_layout(layout: BatchLayout) -> UnsupportedNodeError:
    """The refusal of a call on a tensor whose batch is not the first dimension alone."""
    if layout.joined:
        count = prod(layout.joined)
        return UnsupportedNodeError(
            f"it reads samples that are joined with another dimension, [{count} * N, ...]",
            "keep that dimension apart, and call a layer for each of its positions: "
            "torch.stack([layer(x[:, i]) for i in range(x.shape[1])], 1)",
        )
    return UnsupportedNodeError(
        f"it reads a tensor whose batch is dimension {layout.batch}, and works along it or has no rule",
        f"move the batch to the front, x.transpose(0, {layout.batch}), and work along other dimensions",
    )


def refusal_of_write(name: str) -> UnsupportedNodeError:
    """The refusal of a call in place that has no rule; `name` is ATen's, as "aten::fill_"."""
    return UnsupportedNodeError(*_REASONS.get(name.removeprefix("aten::").removesuffix("_"), _WRITE))
