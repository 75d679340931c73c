"""The commands of `just firmware`, `firmware-all`, `flash`, `monitor` and `board-test`."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from torch_nano import TorchNanoError
from torch_nano.chips import Chip, chip, chips
from torch_nano.compile.profile import layer_counts
from torch_nano.errors import ChipError
from torch_nano.fits.variant import Variant

from . import board_test, build, image, ports, programmers, size
from .boards import BAUDRATE, Board, EmulatedBoard, SerialBoard
from .commands import ROOT, Commands, in_repository
from .errors import FirmwareError, PortError

#: Where the flash images are written.
IMAGES = ROOT / "build/firmware"
#: Where the reports of `board-test` are written.
REPORTS = ROOT / "build/board-test"

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

#: The chip of a command line that names none.
DEFAULT_CHIP = "esp32c3"

_Chip = Annotated[
    str,
    typer.Argument(metavar="CHIP", help=f"One of {', '.join(chips())}; a model alone is for {DEFAULT_CHIP}."),
]
_MODEL = typer.Argument(
    metavar="MODEL",
    help="The folder of nano.export or its model.nano, or the file of nano.save.",
    show_default=str(in_repository(build.DEMO_MODEL)),
)
_Model = Annotated[Path | None, _MODEL]
_Variant = Annotated[Variant, typer.Option("--as", help="What the firmware does.")]
_Port = Annotated[str | None, typer.Option(help="The board's serial port; by default the only one there.")]


@app.command("build")
def build_command(
    chip_name: _Chip = DEFAULT_CHIP,
    model: _Model = None,
    variant: _Variant = Variant.SERVER,
) -> None:
    """Build the firmware for a chip, and make and check its flash image."""
    with _errors():
        facts, model = _chip_and_model(chip_name, model)
        _image(facts, build.exported(model, facts, variant), Commands(), variant)


@app.command("size")
def size_command(
    chip_name: _Chip = DEFAULT_CHIP,
    model: _Model = None,
    variant: _Variant = Variant.SERVER,
) -> None:
    """Build the firmware for a chip, and break down the flash that it takes by section and crate."""
    with _errors():
        facts, model = _chip_and_model(chip_name, model)
        folder = build.exported(model)
        program = build.build(facts, folder, Commands(), variant)
        print(size.firmware_size(program.read_bytes(), (folder / "model.nano").read_bytes()))


@app.command("all")
def all_command(model: _Model = None) -> None:
    """Build the firmware for every chip that builds here, and make and check the flash images."""
    with _errors():
        folder, commands = build.exported(model or build.DEMO_MODEL), Commands()
        for facts in chips().values():
            if facts.builds:
                _image(facts, folder, commands)
            else:
                print(f"{facts.title}: not built: {facts.reason}")


@app.command("flash")
def flash_command(
    chip_name: _Chip = DEFAULT_CHIP,
    model: _Model = None,
    port: _Port = None,
    variant: _Variant = Variant.SERVER,
    programmer: Annotated[
        str | None, typer.Option("--with", help=f"One of {', '.join(programmers.PROGRAMMERS)}.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do all that needs no board; print the commands that do.")
    ] = False,
) -> None:
    """Build the firmware for a chip and write it to the board."""
    with _errors():
        facts, model = _chip_and_model(chip_name, model)
        build.require_builds(facts)
        commands = Commands(dry_run)
        try:
            board = ports.find(facts, port)
        except PortError as error:
            if not dry_run:
                raise
            print(f"no board: {error}")
            board = ports.Port(port or "PORT", facts.transport == "usb-serial-jtag")
        writer = programmers.choose(programmer, board)
        made = _image(facts, build.exported(model, facts, variant), commands, variant)
        for command in writer.commands(facts, board, made.merged):
            commands.run_on_board(*command)


@app.command("monitor")
def monitor_command(chip_name: _Chip = DEFAULT_CHIP, port: _Port = None) -> None:
    """Show the text that the board sends: boot messages, and the place of a panic; Ctrl-] ends."""
    with _errors():
        if _is_path(chip_name):
            raise PortError(f"{chip_name} is no chip: a port is named by --port {chip_name}")
        board = ports.find(chip(chip_name), port)
        # Set, the lines could keep the chip in reset or in its bootloader.
        lines = ("--rts", "0", "--dtr", "0")
        miniterm = (Path(sys.executable), "-m", "serial.tools.miniterm")
        Commands().run_on_board(*miniterm, *lines, board.device, str(BAUDRATE))


@app.command("board-test")
def board_test_command(
    port: Annotated[str, typer.Argument(metavar="PORT", help="The board's serial port, or qemu.")],
    model: _Model = None,
    chip_name: Annotated[str, typer.Option("--chip", help=f"One of {', '.join(chips())}.")] = DEFAULT_CHIP,
    seed: Annotated[int, typer.Option(help="Of the inputs and the moments of power cuts.")] = 1,
    replace_head: Annotated[
        bool, typer.Option("--replace-head", help="Test even if the board has a saved head: it is lost.")
    ] = False,
) -> None:
    """Test a board that runs the firmware with this model, and write a report that one can send."""
    with _errors(), tempfile.TemporaryDirectory() as folder:
        if _is_chip(port):
            raise PortError(f"{port} is a chip, not a port: board-test PORT --chip {port}; PORT may be qemu")
        facts = chip(chip_name)
        file = build.exported(model or build.DEMO_MODEL) / "model.nano"
        image_bytes, emulated = file.read_bytes(), port == "qemu"
        board: Board = (
            EmulatedBoard(image_bytes, Path(folder) / "flash")
            if emulated
            else SerialBoard(ports.find(facts, port), image_bytes)
        )
        name = "qemu" if emulated else facts.name

        def predict(sample: board_test.Sample) -> list[int]:
            counts = layer_counts(image_bytes, sample, facts.name)[1]
            return [each.instructions if emulated else each.cycles for each in counts]

        try:
            report = board_test.test(
                *(board, name, image_bytes),
                seed=seed,
                predict=predict if facts.costs is not None else None,
                replace=replace_head,
            )
        finally:
            board.close()
        written = REPORTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
        report.write(written)
        print(f"{report}\nreport: {in_repository(written)}")
        if not report:
            raise typer.Exit(1)


def _chip_and_model(chip_name: str, model: Path | None) -> tuple[Chip, Path]:
    """The chip and the model of a command line: a path alone is a model for the default chip."""
    if not _is_path(chip_name):
        return chip(chip_name), model or build.DEMO_MODEL
    if model is None:
        return chip(DEFAULT_CHIP), Path(chip_name)
    raise FirmwareError(f"{chip_name} is no chip: the chip stands before the model: CHIP MODEL")


def _is_chip(text: str) -> bool:
    try:
        chip(text)
    except ChipError:
        return False
    return True


def _is_path(text: str) -> bool:
    """Whether an argument in a chip's place is a path; a file of a chip's name is none."""
    return not _is_chip(text) and (Path(text).exists() or not text.replace("-", "").isalnum())


def _image(
    facts: Chip, model: Path, commands: Commands, variant: Variant = Variant.SERVER
) -> image.FlashImage:
    made = image.make(facts, build.build(facts, model, commands, variant), IMAGES, commands)
    used = made.length / made.partition
    print(f"{facts.title}: {made.length:,} of {made.partition:,} bytes of flash ({used:.0%})")
    print(f"for any other tool: esptool --chip {facts.name} write-flash 0x0 {in_repository(made.merged)}")
    return made


@contextmanager
def _errors() -> Iterator[None]:
    """Errors as a message, with exit status 1."""
    try:
        yield
    except (FirmwareError, TorchNanoError, OSError) as error:
        Console(stderr=True).print(f"firmware: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app(prog_name="firmware")
