"""The models that must convert, by name, with the shapes of their inputs without batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torchvision
from mlperf_tiny import ARCHITECTURES
from networks import ConvNet1d, inputs
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from . import images, series

_vision = torchvision.models

#: For each model: how to make it in training mode, and the shape of its input without batch.
ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (_vision.resnet18, (3, 64, 64)),
    "mobilenet_v2": (_vision.mobilenet_v2, (3, 64, 64)),
    "mobilenet_v3_small": (_vision.mobilenet_v3_small, (3, 64, 64)),
    "shufflenet_v2_x0_5": (_vision.shufflenet_v2_x0_5, (3, 64, 64)),
    "squeezenet1_1": (_vision.squeezenet1_1, (3, 64, 64)),
    "efficientnet_b0": (_vision.efficientnet_b0, (3, 64, 64)),
    "vgg11": (images.narrow_vgg11, (3, 32, 32)),
    "vit": (images.vision_transformer, (3, 32, 32)),
    **{name: tuple(architecture) for name, architecture in ARCHITECTURES.items()},
    "ds_cnn, same": (images.DsCnnSame, (1, 49, 10)),
    "mcunet": (images.McuNet, (3, 96, 96)),
    "resnet20": (images.CifarResNet20, (3, 32, 32)),
    "cnn 1-D": (ConvNet1d, (3, 40)),
    "tcn": (partial(series.Tcn, chomp=False), (6, 50)),
    "tcn, chomp": (partial(series.Tcn, chomp=True), (6, 50)),
    **{
        f"u-net, {kind}": (partial(images.UNet, kind), (3, 24, 20))
        for kind in ("transposed", "nearest", "bilinear", "bilinear, corners")
    },
    **{
        f"{kind.__name__.lower()}, {layers} layers, {'batch' if batch_first else 'time'} first, "
        f"{'last' if last else 'sequence'}": (
            partial(series.Recurrent, kind, layers=layers, batch_first=batch_first, last=last),
            (30, 6),
        )
        for kind in (nn.GRU, nn.LSTM)
        for layers in (1, 2)
        for batch_first in (True, False)
        for last in (True, False)
    },
    "gru, bidirectional": (partial(series.Recurrent, nn.GRU, bidirectional=True), (30, 6)),
    "lstm, bidirectional": (partial(series.Recurrent, nn.LSTM, bidirectional=True), (30, 6)),
    "rnn": (partial(series.Recurrent, nn.RNN), (30, 6)),
    "gru, final state": (partial(series.FinalState, nn.GRU), (30, 6)),
    "lstm, final state": (partial(series.FinalState, nn.LSTM, 2), (30, 6)),
    "mixednet": (images.MixedNet, (1, 40, 20)),
    "eegnet": (images.EegNet, (16, 128)),
    "transformer": (series.SensorTransformer, (24, 6)),
    "transformer, norm first": (
        partial(series.SensorTransformer, norm_first=True, activation="gelu"),
        (24, 6),
    ),
}


def make(name: str, samples: int = 32) -> tuple[nn.Module, Tensor]:
    """A model in evaluation mode, and inputs; its batch norms have the exact statistics of the inputs."""
    function, shape = ZOO[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = function()
        x = inputs(shape, samples)
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        for norm in norms:
            # None: the running statistics are those of all data so far.
            norm.momentum = None
        if norms:
            with torch.no_grad():
                model.train()(x)
    return model.eval(), x
