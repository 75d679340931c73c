"""Images for the target `image`: random layers of each operator, and exported networks with each head."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch_nano as tn
from torch_nano.library.one_layer import one_layer_model
from torch_nano.ops import OPERATORS

TESTS = Path(__file__).parents[2] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "ops")]

import cases  # type: ignore[import-not-found]  # noqa: E402
import networks  # type: ignore[import-not-found]  # noqa: E402

#: Random layers of each operator.
_LAYERS = 4
#: Larger images only take time: more weights exercise no new code.
_LARGEST = 16_384


def images() -> list[bytes]:
    """The images, each of which nano-core runs."""
    made = []
    for operator in OPERATORS:
        for seed in range(_LAYERS):
            case = cases.make(operator, seed)
            model = one_layer_model(case, [tuple(y.shape[1:]) for y in case.integer_run()])
            made.append(model.image)
    for network, shape in networks.NETWORKS:
        x = networks.inputs(shape, 32)
        made.append(tn.to_nano(networks.make(network), x, calibrate=x).image)
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    settings: list[tuple[tn.heads.HeadSettings, int]] = [
        (tn.heads.SGD(0.05), 1),
        (tn.heads.SGD(0.05), 2),
        (tn.heads.LDA(capacity=5), 1),
        (tn.heads.Prototype(), 1),
    ]
    for head, layers in settings:
        torch.manual_seed(0)
        linear = [torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU()]
        net = torch.nn.Sequential(*linear, torch.nn.Linear(8, 3))
        tn.freeze(net, "0", *(["2"] if layers == 1 else []))
        names = ["a", "b", "c"]
        made.append(tn.to_nano(net, x, calibrate=x, labels=names, head=head, train_last=layers).image)
    return [image for image in made if len(image) <= _LARGEST]


def write(folder: Path) -> int:
    """Writes them into a folder; returns their number."""
    made = images()
    for number, image in enumerate(made):
        (folder / f"export-{number:03}").write_bytes(image)
    return len(made)
