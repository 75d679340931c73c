"""The last layers of a network: nano-core's LayersHead as an nn.Module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import HeadError
from .sgd import SgdHead


class LayersHead(SgdHead):
    """The last layers of a network, trained by stochastic gradient descent and backpropagation in integers.

    `to_nano(train_last=2)` makes it from layers that are Linear or convolutions, with pools and residual
    additions between them. The methods are those of :class:`~torch_nano.heads.SgdHead`.
    nano-core (`train::LayersHead`) has the arithmetic and its bounds.

    >>> import torch, torch_nano as tn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x, y = torch.randn(64, 4), torch.arange(64) % 3
    >>> nano = tn.to_nano(model, x, calibrate=x, train_last=2, learning_rate=0.05)
    >>> nano.head.fit(nano.features_int8(x), y, epochs=16)
    >>> nano.head, nano.head_path
    (LayersHead(features=8, classes=3, layers=2), '2, 4')
    >>> nano.load_head_into(model)  # the float model now has what the integers have learnt
    """

    name = "layers_head"

    @property
    def layers(self) -> int:
        """Number of layers, those without weights among them."""
        return self.layer_sizes[0]

    def weights(self) -> list[tuple[Tensor, Tensor]]:
        """Present weights [outputs, inputs] and biases [outputs] of each layer that learns, dequantized to
        float32; inputs are in the device's order (height, width, channels).
        """
        layers = self._head.real_layers()
        return [(torch.from_numpy(weight), torch.from_numpy(bias)) for weight, bias, _ in layers]

    def write_into(self, model: nn.Module, paths: list[str]) -> None:
        """Writes :meth:`weights` into the modules of a float model, in torch's order.

        Args:
            model: the model that this head was made from, or one with such modules.
            paths: paths of the modules, in the layers' order.

        Raises:
            HeadError: the model has no such modules; nothing is then written.
        """
        modules = [_module(model, path) for path in paths]
        values = []
        for module, (weight, bias), (_, _, pixels) in zip(
            modules, self.weights(), self._head.real_layers(), strict=True
        ):
            # In torch, the columns of a layer over several pixels are in channels-first order.
            columns = weight.reshape(len(weight), pixels, -1).movedim(1, 2)
            if columns.numel() != module.weight.numel() or (module.bias is None and bias.any()):
                raise HeadError(
                    f"{module} cannot take weights {list(weight.shape)} with biases: expected the model that "
                    "the head was made from (a layer that learns on a device needs a bias)"
                )
            values.append((module, columns.reshape(module.weight.shape), bias))
        with torch.no_grad():
            for module, weight, bias in values:
                module.weight.copy_(weight)
                if module.bias is not None:
                    module.bias.copy_(bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, layers={self.layers}"


def _module(model: nn.Module, path: str) -> nn.Linear | nn.Conv1d | nn.Conv2d:
    found = dict(model.named_modules()).get(path)
    if not isinstance(found, nn.Linear | nn.Conv1d | nn.Conv2d):
        kind = "no module" if found is None else f"a {type(found).__name__}"
        raise HeadError(f"the model has {kind} {path!r}; expected a Linear or a convolution there")
    return found
