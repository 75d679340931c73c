"""Builds the firmware for a chip with an exported model."""

from __future__ import annotations

import re
from pathlib import Path

import torch_nano as tn
from torch_nano.arguments import image_of
from torch_nano.chips import Chip, chips
from torch_nano.compile.image_fit import image_fit
from torch_nano.errors import FileFormatError
from torch_nano.fits.chip_fit import ChipFit
from torch_nano.fits.variant import Variant

from .commands import ROOT, Commands, in_repository
from .errors import CommandFailed, FirmwareError, ModelMissing, ModelTooLarge


def features(variant: Variant) -> tuple[str, ...]:
    """A variant's features of cargo, beside the chip's."""
    return () if variant is Variant.SERVER else (variant.value,)


def program_name(variant: Variant) -> str:
    """The name of a variant's binary."""
    return "classifier" if variant is Variant.CLASSIFIER else "firmware"


#: Where `just demo` exports its model.
DEMO_MODEL = ROOT / "build/demo/model"


def exported(model: Path, chip: Chip | None = None, variant: Variant = Variant.SERVER) -> Path:
    """The folder of an exported model: `model`, that of its `model.nano`, or one to which a file is exported.

    Args:
        chip: refuses a model that does not fit it, before anything is compiled, and prints what else is to be
            said of the fit; None: any.
        variant: what the firmware does.

    Raises:
        ModelTooLarge: it does not fit.
        FirmwareError: the firmware does not build for this chip.
        ModelMissing: there is neither an exported model nor a file.
        torch_nano.errors.FileFormatError: the file is no saved model, or the folder's image is of another
            version.
        OSError: the folder's image cannot be read.
    """
    if chip is not None:
        require_builds(chip)
    if model.name == "model.nano":
        model = model.parent
    if model.is_dir() or not model.exists():
        if not (model / "model.rs").is_file():
            what = f"{model}, which is a chip" if model.name in chips() else str(in_repository(model))
            raise ModelMissing(
                f"no exported model in {what}: nano.export(folder) in Python writes one, "
                f"`just demo` the one in {in_repository(DEMO_MODEL)}"
            )
        try:
            image = image_of((model / "model.nano").read_bytes())
        except FileFormatError as error:
            raise FileFormatError(f"{in_repository(model / 'model.nano')}: {error}") from error
        if chip is not None:
            _check(image_fit(image, chip, variant))
        return model
    folder = ROOT / "build/firmware/exported" / model.stem
    nano = tn.load(model)
    if chip is not None:
        _check(nano.fits_without_time(chip, variant))
    nano.export(folder)
    return folder


def _check(fit: ChipFit) -> None:
    """Prints the advice of a fit.

    Raises:
        ModelTooLarge: it does not fit.
    """
    if not fit:
        raise ModelTooLarge(fit.problem)
    for advice in fit.advice:
        print(f"note: {advice}")


def require_builds(chip: Chip) -> None:
    """Refuses a chip for which the firmware does not build.

    Raises:
        FirmwareError: it is one.
    """
    if not chip.builds:
        raise FirmwareError(f"the firmware does not build for the {chip.title}: {chip.reason}")


def build(chip: Chip, model: Path, commands: Commands, variant: Variant = Variant.SERVER) -> Path:
    """Builds the firmware and returns its ELF program.

    Args:
        model: the folder of an exported model.
        variant: what the program does.

    Raises:
        FirmwareError: the firmware does not build for this chip, or the build fails.
        ModelTooLarge: the model needs more RAM than the chip has.
    """
    require_builds(chip)
    try:
        commands.run(
            *("tools/cross-cargo", "build", "--locked", "--release"),
            *("--manifest-path", "esp32-app/firmware/Cargo.toml"),
            *("--no-default-features", "--features", ",".join([chip.name, *features(variant)])),
            *("--bin", program_name(variant)),
            CARGO_BUILD_TARGET=chip.target,
            TORCH_NANO_MODEL=str(in_repository(model.resolve())),
        )
    except CommandFailed as error:
        too_large = re.search(r"the model needs \d+ bytes of RAM .*", str(error))
        if too_large:
            raise ModelTooLarge(f"{chip.title}: {too_large[0]}") from error
        raise
    return elf(chip, variant)


def elf(chip: Chip, variant: Variant = Variant.SERVER) -> Path:
    """Where cargo writes the ELF program; chips of one target share it."""
    return ROOT / "esp32-app/target" / chip.target / "release" / program_name(variant)
