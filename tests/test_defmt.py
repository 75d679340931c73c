"""A program can print to a debug probe what it can print elsewhere: with the feature `defmt`, types that have
`Debug` have `defmt::Format`. The lint compiles it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CRATES = {"nano-core": ROOT / "nano-core/src", "device": ROOT / "esp32-app/device/src"}
ITEM = re.compile(r"((?:^ *(?:#\[.*|//.*)\n)+)^ *pub (?:struct|enum) (\w+)", re.MULTILINE)
#: They describe images to the writer, on hosts, or hold pointers to functions.
HOST_OR_FUNCTIONS = {
    "AddParameters",
    "Alias",
    "Budget",
    "Cost",
    "Descent",
    "FlashTiming",
    "CodeSize",
    "HeadDescription",
    "InputDescription",
    "KernelEstimate",
    "LayerDescription",
    "LayerEstimate",
    "LayersDescription",
    "LayerNormParameters",
    "LdaDescription",
    "LogSoftmaxParameters",
    "ModelDescription",
    "Optimize",
    "OutputDescription",
    "OverlayRule",
    "Processor",
    "RejectionDescription",
    "SgdDescription",
    "SoftmaxParameters",
    "StartDescription",
    "SumsDescription",
    "Tensor",
    "TrainedLayer",
    "Update",
    "ValueDescription",
    "WriteError",
}


@pytest.mark.parametrize("crate", CRATES)
def test_types_that_can_be_printed_can_be_printed_by_a_probe(crate: str) -> None:
    printed: dict[str, str] = {}
    for file in sorted(CRATES[crate].rglob("*.rs")):
        for attributes, name in ITEM.findall(file.read_text()):
            if re.search(r"derive\(.*\bDebug\b", attributes):
                printed[name] = attributes
    assert len(printed) > 15
    missing = {name for name, attributes in printed.items() if "derive(defmt::Format)" not in attributes}
    assert missing <= HOST_OR_FUNCTIONS
