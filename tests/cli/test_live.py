"""The page of `torch-nano live`: its buttons pressed in a browser, its token, and what the device learns."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import torch
import torch_nano as tn
from playwright.sync_api import Browser, Page, expect, sync_playwright
from torch_nano_cli.live.server import HOST, LiveServer
from torch_nano_cli.live.session import LiveSession
from torch_nano_cli.sensor import samples_of

from .test_sensor_commands import CHANNELS, LABELS, LENGTH, folder

__all__ = ["folder"]

#: Of an element on the page, in milliseconds: a browser's start is slow on a busy machine.
TIMEOUT = 30_000


def make_nano(head: tn.heads.HeadSettings) -> tn.NanoModule:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        *(
            torch.nn.Conv1d(CHANNELS, 8, 5),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool1d(1),
            torch.nn.Flatten(),
        ),
        torch.nn.Linear(8, 3),
    )
    x = torch.randn(64, CHANNELS, LENGTH)
    return tn.to_nano(model, calibrate=x, head=head, labels=LABELS, name="moves", check=False)


@contextmanager
def served(connection: str, nano: tn.NanoModule, replay: Path) -> Iterator[LiveServer]:
    with tn.Device(connection, nano=nano) as device:
        session = LiveSession(device, samples_of(device, replay, 300, repeat=True), 10)
        server = LiveServer(session)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join(timeout=20)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium is not None, "chromium is missing: python3 tools/setup.py installs it"
    with sync_playwright() as playwright:
        # Without its sandbox, which root cannot have: it opens our own page only.
        made = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield made
        made.close()


@contextmanager
def opened(browser: Browser, url: str, width: int = 1200, scheme: str = "light") -> Iterator[Page]:
    """The page; an error on its console fails the test."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page.set_default_timeout(TIMEOUT)
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(url)
    yield page
    page.close()
    assert not told


def until(page: Page, condition: str) -> None:
    """Waits for an expression of the page's script; not with eval, which the page forbids."""
    deadline = time.monotonic() + TIMEOUT / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"{condition}: {page.evaluate('JSON.stringify(state)')}"
        page.wait_for_timeout(20)


@pytest.mark.parametrize("connection", ["sim", "qemu"])
def test_pressing_the_buttons_teaches_undoes_adds_and_saves(
    browser: Browser, folder: Path, connection: str
) -> None:
    nano = make_nano(tn.heads.LDA(capacity=4))
    with served(connection, nano, folder / "replay.csv") as server, opened(browser, server.url) as page:
        classes = page.locator("#classes li")
        expect(classes).to_have_count(3, timeout=TIMEOUT)
        expect(page.locator("#model")).to_have_text("moves")
        expect(page.locator("#undo")).to_be_disabled()
        expect(page.locator("#accuracy")).to_have_text("-")
        for index, label in enumerate(LABELS):
            until(page, f"state && state.seen === '{label}'")
            classes.nth(index).locator("button").click()
            expect(page.locator("#told")).to_have_text(f"learnt that this is {label}")
            expect(classes.nth(index).locator(".taught")).to_have_text(" 1")
        until(page, "state.judged > 10 && !state.training")
        judged = page.evaluate("[state.right, state.judged, state.confusion.flat().reduce((a, b) => a + b)]")
        assert 0 <= judged[0] <= judged[1] == judged[2]
        expect(page.locator("#accuracy")).to_contain_text("%")
        expect(page.locator("#confusion tr")).to_have_count(4)
        page.locator("#undo").click()
        expect(page.locator("#told")).to_contain_text("took back the training")
        expect(page.locator("#undo")).to_be_disabled()
        page.locator("#name").fill("<b>jump</b>")
        page.locator("#add button").click()
        expect(page.locator("#told")).to_contain_text("added the class <b>jump</b>")
        expect(classes).to_have_count(4)
        expect(classes.nth(3).locator(".name")).to_have_text("<b>jump</b>")
        expect(page.locator("#add")).to_be_hidden()
        page.locator("#save").click()
        expect(page.locator("#told")).to_have_text("saved: 1 in all")
        expect(page.locator("#status")).to_contain_text("saved 1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_fits_its_window(browser: Browser, folder: Path, width: int, scheme: str) -> None:
    nano = make_nano(tn.heads.SGD(0.05))
    with (
        served("sim", nano, folder / "replay.csv") as server,
        opened(browser, server.url, width, scheme) as page,
    ):
        until(page, "state && state.windows > 3")
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        back, text = (
            sum(map(int, page.evaluate(f"getComputedStyle(document.body).{what}")[4:-1].split(",")))
            for what in ("backgroundColor", "color")
        )
        assert (back > text + 500) if scheme == "light" else (text > back + 500)
        painted = "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(Boolean)"
        assert page.evaluate(
            f"(() => {{ const c = document.getElementById('signal'); return {painted}; }})()"
        )


def test_only_who_has_the_token_is_answered_and_only_on_this_computer(folder: Path) -> None:
    with served("sim", make_nano(tn.heads.SGD(0.05)), folder / "replay.csv") as server:

        def ask(method: str, path: str, body: str = "{}", **headers: str) -> tuple[int, str]:
            with closing(http.client.HTTPConnection(HOST, server.port, timeout=20)) as connection:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()

        own = {"Authorization": f"Bearer {server.token}"}
        assert server._socket.getsockname()[0] == HOST == "127.0.0.1"
        status, text = ask("GET", "/")
        assert status == 200 and server.token not in text and "http" not in text.replace("http-equiv", "")
        for path in ("/events", "/do/save"):
            method = "POST" if path == "/do/save" else "GET"
            for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Bearer \xe9"}):
                status, text = ask(method, path, **headers)
                assert status == 403 and "open the address that torch-nano live printed" in text
        assert ask("GET", "/", Host="elsewhere.example")[0] == 400
        for path, body in (
            ("/do/erase", "{}"),
            ("/do/teach", "{}"),
            ("/do/teach", '{"class": "1"}'),
            ("/do/add", "no JSON"),
            ("/do/add", "[1]"),
        ):
            status, text = ask("POST", path, body, **own)
            assert status == 400 and "error" in json.loads(text), path
        status, text = ask("POST", "/do/undo", **own)
        assert status == 409 and "there is nothing to take back" in text
        assert ask("POST", "/do/teach", '{"class": 7}', **own)[0] == 409


@pytest.mark.parametrize("head", [tn.heads.LDA(), tn.heads.SGD(0.05)], ids=["lda", "sgd"])
def test_the_device_learns_the_windows_that_were_taught(
    folder: Path, head: tn.heads.HeadSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch_nano_cli.live.session._PAUSE", 0.0)
    nano = make_nano(head)
    windows = tn.windows(folder / "replay.csv", LENGTH, LENGTH).x
    with tn.Device("sim", nano=nano) as device, tn.Device("sim", nano=nano) as twin:
        session = LiveSession(device, iter(()), LENGTH)
        taught = 0
        for number, sample in enumerate(samples_of(device, folder / "replay.csv", 1e6), 1):
            session.take(sample)
            if number % LENGTH == 0 and taught < 3:
                session.teach(taught)
                twin.learn(windows[number // LENGTH - 1], taught)
                twin.train(20) if isinstance(head, tn.heads.SGD) else twin.commit()
                taught += 1
        assert device.head_state() == twin.head_state()
        state = session.state()
    assert state["judged"] == 8 and state["error"] is None, state
    assert [one["taught"] for one in state["classes"]] == [1, 1, 1]


def test_a_label_is_taken_back_before_it_is_trained(folder: Path) -> None:
    nano = make_nano(tn.heads.LDA())
    with tn.Device("sim", nano=nano) as device:
        session = LiveSession(device, iter(()), None)
        with pytest.raises(tn.errors.InputError, match="there is no window yet"):
            session.teach(0)
        for sample, _ in zip(samples_of(device, folder / "replay.csv", 1e6), range(LENGTH), strict=False):
            session.take(sample)
        before = device.head_state()
        session.teach(1)
        assert device.head_state() != before
        assert session.undo() == "took back the label walk"
        assert device.head_state() == before and not session.state()["training"]


def test_a_model_without_classes_to_learn_and_a_missing_package_are_refused(folder: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 6)
    nano = tn.to_nano(torch.nn.Linear(6, 3), calibrate=x, head=None, check=False)
    with (
        tn.Device("sim", nano=nano) as device,
        pytest.raises(
            tn.errors.InputError,
            match="has no head that learns classes; expected one",
        ),
    ):
        LiveSession(device, iter(()), None)
    program = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from torch_nano_cli.main import main\n"
        f"sys.argv = ['torch-nano', 'live', 'sim', '-m', {str(folder / 'moves.nanomodel')!r}]\nmain()"
    )
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert made.returncode == 1
    assert "the page needs uvicorn, which is not installed: pip install 'torch-nano[live]'" in made.stderr
