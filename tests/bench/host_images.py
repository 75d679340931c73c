"""Converts torchvision's resnet18 with 128 images of 224 x 224, or runs it on them in float, in this process.

Prints the seconds of the processor and the peak of memory as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import torch
import torch_nano as tn
import torchvision  # type: ignore[import-untyped]
from torch import nn

BATCH, SAMPLES = 16, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("passes", "to_nano"), help="float passes in batches of 16; to_nano")
    what = parser.parse_args().what
    # Of random weights.
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    # Imports all that a conversion does.
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    tn.to_nano(small, torch.randn(2, 3, 8, 8), calibrate=torch.randn(32, 3, 8, 8))
    before = _resident("VmRSS")
    model, x = torchvision.models.resnet18(weights=None).eval(), torch.randn(SAMPLES, 3, 224, 224)
    start = time.process_time()
    if what == "passes":
        with torch.no_grad():
            for batch in torch.split(x, BATCH):
                model(batch)
    else:
        tn.to_nano(model, x[:2], calibrate=x)
    print(json.dumps({"seconds": time.process_time() - start, "bytes": _resident("VmHWM") - before}))


def _resident(field: str) -> int:
    """Bytes of this process: VmRSS is the resident set, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
