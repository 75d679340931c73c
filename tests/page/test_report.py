"""The report of a model in a browser: one file, no errors, light and dark, wide and narrow."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from test_tables import text_of
from torch import Tensor, nn
from torch_nano.page.graph_picture import Box, graph_svg

from page.browser import look

NAMES = ["rest", "walk", "<run>"]


class Net(nn.Module):
    """Two branches, so that the graph has two boxes side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.ReLU())
        self.left, self.right = nn.Conv1d(8, 8, 3, padding=1), nn.Conv1d(8, 8, 5, padding=2)
        self.pool, self.classifier = nn.AvgPool1d(4), nn.Linear(40, 3)

    def forward(self, motion: Tensor) -> Tensor:
        x = self.stem(motion)
        result: Tensor = self.classifier(self.pool(self.left(x) + self.right(x)).flatten(1))
        return result


@pytest.fixture(scope="module")
def samples() -> tuple[Tensor, Tensor]:
    y = torch.arange(90) % 3
    return torch.randn(90, 4, 20, generator=torch.Generator().manual_seed(0)) + y[:, None, None], y


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def nano(model: nn.Module, samples: tuple[Tensor, Tensor]) -> tn.NanoModule:
    x, y = samples
    made = tn.to_nano(model, calibrate=x, labels=NAMES, name="<motion>", head=tn.heads.LDA())
    made.head.fit(made.features_int8(x), y)
    return made


@pytest.fixture(scope="module")
def page(
    nano: tn.NanoModule,
    model: nn.Module,
    samples: tuple[Tensor, Tensor],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    nano.report(file, samples, model)
    return file


def test_it_is_one_file_with_all_that_results_say(
    page: Path, nano: tn.NanoModule, model: nn.Module, samples: tuple[Tensor, Tensor]
) -> None:
    text = page.read_text()
    # Only a data: address; the namespace of SVG is not needed in HTML.
    assert not re.search(r"https?://|<script|@import|<link(?! rel=\"icon\" href=\"data:,\")", text)
    assert "<run>" not in text and "&lt;run&gt;" in text and "<h1>&lt;motion&gt;</h1>" in text
    shown = text_of(re.sub(r"<(meta|link|!doctype)[^>]*>|<style>.*?</style>", "", text, flags=re.S))
    evaluation = nano.evaluate(samples, model)
    summary, profile = nano.summary(), nano.profile("esp32c3")
    wanted = [f"{evaluation.accuracy:.1%}", f"{summary.flash_bytes / 1000:.1f} kB", profile.total_time]
    wanted += [f"{profile.milliseconds(profile.total):.2f} ms", f"{nano.id:08x}", tn.__version__]
    wanted += [layer.module_path for layer in summary.layers] + [layer.kernel for layer in summary.layers]
    wanted += [f"{layer.counts.cycles:,}" for layer in profile.layers]
    wanted += [chip.title for chip in tn.chips.chips().values()]
    wanted += [f"scale {q.scale:.4g}, zero point {q.zero_point}" for q in nano.input_quantizations.values()]
    assert not [each for each in wanted if each not in shown]
    assert str(nano.memory_map()) in shown


def test_the_picture_of_a_graph_has_a_curve_for_each_edge() -> None:
    boxes = [
        Box("x"),
        Box("a", ["line"], [0]),
        Box("b", [], [0]),
        Box("add", [], [1, 2]),
        Box("y", [], [3, 0]),
    ]
    svg = graph_svg(boxes)
    assert svg.count("<rect") == 5 and svg.count("<path") == 6
    # Those of one row stand side by side, in the order of what they read.
    places = [float(x) for x in re.findall(r'<rect x="([\d.]+)"', svg)]
    assert places[1] < places[0] == places[3] == places[4] < places[2]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 380])
def test_a_browser_shows_it_without_errors(page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    seen = look(page, tmp_path, width=width, dark=dark)
    assert not seen.console
    # Wide tables scroll inside of the page, and the page does not.
    assert seen.content <= seen.window == width
    background = seen.pixels[-1, 1]
    assert (background < 0.2).all() if dark else (background > 0.9).all()
    # Text and pictures differ from what is behind them.
    assert 0.02 < (np.abs(seen.pixels - background).max(2) > 0.3).mean() < 0.5


def test_without_data_it_has_what_the_model_says(nano: tn.NanoModule, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("of an earlier model")
    nano.report(file)
    text = file.read_text()
    assert "Accuracy" not in text and "Memory" in text and "Chips" in text


def test_a_model_without_layers_has_a_page(tmp_path: Path) -> None:
    nano = tn.to_nano(nn.Linear(4, 3), calibrate=torch.randn(64, 4), head=tn.heads.SGD())
    nano.report(tmp_path / "report.html")
    assert "no layers" in (tmp_path / "report.html").read_text()
    seen = look(tmp_path / "report.html", tmp_path, width=1200)
    assert not seen.console and seen.content == 1200


def test_wrong_arguments_are_refused(nano: tn.NanoModule, model: nn.Module, tmp_path: Path) -> None:
    file, x = tmp_path / "report.html", torch.zeros(4, 4, 20)
    with pytest.raises(tn.errors.InputError, match="no labels, and there is no float model"):
        nano.report(file, x)
    with pytest.raises(tn.errors.InputError, match="can be read only once"):
        nano.report(file, iter([(x, torch.zeros(4))]))
    with pytest.raises(tn.errors.ChipError, match="there is no chip 'esp8266'"):
        nano.report(file, chip="esp8266")
    assert not file.exists()
    nano.report(file, x, model, chip="esp32c6")
    assert "time unknown" in file.read_text() and "Accuracy" not in file.read_text()


def test_the_memory_map_has_each_byte_in_use(nano: tn.NanoModule) -> None:
    memory = nano.memory_map()
    for index, in_use in enumerate(memory.in_use):
        used = np.zeros(memory.size, bool)
        for block in memory.blocks:
            if block.first <= index <= block.last:
                used[block.start : block.end] = True
        assert used.sum() == in_use <= memory.size == nano.arena_bytes
    ax = memory.plot()
    assert len(ax.patches) == len(memory.blocks)
