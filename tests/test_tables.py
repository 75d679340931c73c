"""Tables of results, as text and as HTML; all results have both."""

from html.parser import HTMLParser

import pytest
import torch
import torch_nano as tn
from matplotlib import pyplot
from torch import nn
from torch_nano.tables import Table
from torch_nano.training.history import EpochRecord, History


class Checked(HTMLParser):
    """Fails on tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def text_of(html: str) -> str:
    parser = Checked()
    parser.feed(html)
    assert not parser.open
    return parser.text


def test_a_table_prints_what_users_call_things() -> None:
    table = Table(("a", "b\n(B)"), "<net> [bold]", numbers=[1], notes=["<note>"])
    table.add("[red]x", "1")
    table.add_line()
    table.add("<b>")
    lines = str(table).splitlines()
    assert lines[0] == "<net> [bold]" and lines[-1] == "<note>" and "[red]x    1" in lines
    assert text_of(table.html()) == "<net> [bold]ab(B)[red]x1<b><note>"
    assert "<b>" not in table.html()


def test_every_result_prints_as_text_and_as_html() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(64, 4), torch.arange(64) % 3
    nano = tn.to_nano(model, x, calibrate=x, name="<b>net</b>", head=tn.heads.LDA())
    with tn.Device("sim", nano=nano) as device:
        device.fit(x, y)
        prediction = device.predict(x[0])
    results: list[object] = [
        nano.summary(),
        nano.summary("esp32c3", kernels=True),
        nano.profile("esp32c3"),
        nano.fits("esp32c3"),
        nano.verify("host", x),
        nano.compare(model, x),
        nano.evaluate((x, y), model),
        History([EpochRecord(0, 0.7, 0.5, 0.9, 0.4, {"all": 0.1}, 1.5)]),
        prediction,
    ]
    for result in results:
        shown = text_of(result._repr_html_())  # type: ignore[attr-defined]
        words = {word for line in str(result).splitlines() for word in line.split() if "─" not in word}
        missing = {word for word in words if word not in shown}
        assert not missing, (type(result).__name__, missing)
        assert "(name=" not in repr(result), "a raw dataclass"
    assert "<b>" not in nano._repr_html_() and "&lt;b&gt;net" in nano._repr_html_()


def test_a_profile_draws_the_milliseconds_of_each_layer() -> None:
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(64, 4)
    profile = tn.to_nano(model, x, calibrate=x).profile("esp32c3")
    ax = profile.plot()
    heights = [bar.get_height() for bar in ax.patches]
    layers = [profile.milliseconds(layer.counts) for layer in profile.layers]
    assert heights[: len(layers)] == layers and sum(heights[len(layers) :]) <= sum(layers)
    pyplot.close(ax.figure)


@pytest.mark.parametrize("target", ["value", "labels"])
def test_a_prediction_of_a_number_or_of_several_classes_prints(target: str) -> None:
    model, x = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1)), torch.randn(64, 4)
    loss = {"value": "squared", "labels": "binary"}[target]
    nano = tn.to_nano(model, x, calibrate=x, head=tn.heads.SGD(loss=loss), check=False)  # type: ignore[arg-type]
    with tn.Device("sim", nano=nano) as device:
        made = device.predict(x[0])
    assert str(made).startswith({"value": "value ", "labels": "right: "}[target])
