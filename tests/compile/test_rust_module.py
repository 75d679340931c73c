import numpy as np
import pytest
import torch
import torch_nano as tn
from fusion import data, fusion
from networks import ConvNet1d, inputs, make
from torch_nano.arithmetic.layout import to_device
from torch_nano.compile import export

from .exported import run_exported


@pytest.fixture(scope="module")
def nano_with_head():
    model = make(ConvNet1d)
    tn.freeze(model, "features")
    x = inputs((3, 40), 64)
    labels = ["a", 'b "quoted"', "c\\d", "\u00e9t\u00e9", "e\tf"]
    return tn.to_nano(model, x, calibrate=x, labels=labels, name='net "1"')


def test_an_export_has_the_image_and_its_sizes(nano_with_head, tmp_path):
    folder = tmp_path / "new" / "model"
    nano_with_head.export(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["model.nano", "model.rs"]
    assert (folder / "model.nano").read_bytes() == nano_with_head.image
    text = (folder / "model.rs").read_text()
    for line in (
        f"pub const ARENA_LENGTH: usize = {nano_with_head.arena_bytes};",
        "pub const INPUT_LENGTH: usize = 120;",
        "pub const OUTPUT_LENGTH: usize = 16;",
        "pub const LAYERS: usize = 4;",
        "pub const CLASSES: usize = 5;",
        "    pub mod x {",
        '    pub const NAME: &str = "x";',
        "    pub const SHAPE: [usize; 3] = [1, 40, 3];",
        "    pub type Element = i8;",
        f"    pub const ZERO_POINT: i32 = {nano_with_head.input_quantization.zero_point};",
    ):
        assert line in text
    table = text[text.index("pub static KERNELS") :]
    used = {layer.kernel.upper() for layer in nano_with_head.summary().layers if layer.memory == "flash"}
    assert {"MAX_POOL2D", "AVERAGE_POOL2D"} < used
    assert table.count("nano_core::ops::") == len(used)
    assert all(f"ops::{name}," in table for name in used)


def test_the_module_compiles_and_runs_to_the_same_bytes(nano_with_head, tmp_path):
    """A program with the generated module prints what NanoModule gives."""
    program = """mod model;
        use nano_core::{Model, image::Image, train::Head};
        use std::io::Read;

        fn main() {
            let mut arena = [0; model::ARENA_LENGTH];
            let mut run = Model::new(model::IMAGE, &mut arena, model::KERNELS).unwrap();
            let mut input = [0; model::INPUT_LENGTH];
            std::io::stdin().read_exact(&mut input).unwrap();
            run.input(0).copy_from_slice(&input.map(|byte| byte as i8));
            run.run();
            let features: [i8; model::OUTPUT_LENGTH] = run.output(0).try_into().unwrap();
            let ram = Box::leak(Box::new([0; model::HEAD.unwrap().words()]));
            let image = Image::new(model::IMAGE).unwrap();
            let mut head: model::Head<'_> = Head::new(&image, ram).unwrap();
            println!("{:?}", head.logits(&features).unwrap());
            println!("{}", model::LABELS.join("\\n"));
        }
        """
    x = nano_with_head.quantize_input(inputs((3, 40), 1))
    printed = run_exported(nano_with_head, tmp_path, program, to_device(x).numpy().tobytes())
    logits, labels = printed.decode().split("\n", 1)
    assert logits == str(nano_with_head.forward_int8(x)[0].tolist())
    assert labels.removesuffix("\n").split("\n") == nano_with_head.labels


def test_the_module_has_all_inputs_and_outputs(tmp_path):
    batch = data()
    nano = tn.to_nano(fusion(), batch, calibrate=batch)
    program = """mod model;
        use model::{inputs::{motion, sound}, outputs::{kind, level}};
        use nano_core::Model;
        use std::io::Read;

        fn main() {
            let mut arena = [0; model::ARENA_LENGTH];
            let mut run = Model::new(model::IMAGE, &mut arena, model::KERNELS).unwrap();
            let mut input = [0; model::INPUT_LENGTH];
            std::io::stdin().read_exact(&mut input).unwrap();
            let (first, second) = input.split_at(motion::LENGTH);
            let second: [u8; sound::LENGTH] = second.try_into().unwrap();
            run.input(motion::INDEX).copy_from_slice(&Vec::from_iter(first.iter().map(|&byte| byte as i8)));
            run.input(sound::INDEX).copy_from_slice(&second.map(|byte| byte as i8));
            run.run();
            let made: [kind::Element; kind::LENGTH] = run.output(kind::INDEX).try_into().unwrap();
            let real = |q: i8, scale: f32, zero_point: i32| scale * (i32::from(q) - zero_point) as f32;
            let integers = run.output(level::INDEX);
            println!("{made:?}");
            println!("{:e}", real(integers[0], level::SCALE, level::ZERO_POINT));
            println!("{:e}", model::dequantize_level(&[integers[0]])[0]);
            println!("{:?} {:?} {}", motion::SHAPE, kind::SHAPE, model::OUTPUT_LENGTH);
        }
        """
    sample = {name: x[:1] for name, x in batch.items()}
    sent = b"".join(x.tobytes() for x in nano.device_inputs(**sample))
    kind, level, same, shapes = run_exported(nano, tmp_path, program, sent).decode().splitlines()
    integers = nano.forward_int8(*nano.quantize_inputs(**sample))
    assert kind == str(integers["kind"][0].tolist())
    assert np.float32(level) == np.float32(same) == np.float32(nano(**sample)["level"][0])
    assert shapes == "[1, 9, 3] [1, 1, 5] 6"


def test_a_model_without_a_head_exports_none(nano, tmp_path):
    nano.export(tmp_path)
    text = (tmp_path / "model.rs").read_text()
    assert "CLASSES: usize = 0;" in text and "HeadSizes> = None;" in text and "train::NoHead;" in text
    assert "nano_core::ops::FULLY_CONNECTED," in text and '"a",' in text


def test_exporting_again_replaces_its_own_files(nano, nano_with_head, tmp_path):
    nano.export(tmp_path)
    nano_with_head.export(tmp_path)
    assert (tmp_path / "model.nano").read_bytes() == nano_with_head.image


@pytest.mark.parametrize("name", ["model.rs", "model.nano"])
def test_other_files_are_not_overwritten(nano, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(tn.errors.ExportError, match=f"{name} exists"):
        nano.export(tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / name).unlink()
    (tmp_path / "other.rs").write_text("mine")
    nano.export(tmp_path)
    assert (tmp_path / "other.rs").read_text() == "mine"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: (folder / "file").write_text("mine"), "a file of that name is there"),
        (lambda folder: (folder / "file").symlink_to(folder / "missing" / "place"), "a file of that name"),
        (lambda folder: (folder / "file").symlink_to("/proc/none"), "a file of that name|No such file"),
    ],
)
@pytest.mark.parametrize("below", [False, True])
def test_a_folder_that_cannot_be_made_is_an_export_error(nano, tmp_path, make, reason, below):
    make(tmp_path)
    target = tmp_path / "file" / "below" if below else tmp_path / "file"
    reason = "Not a directory|No such file|File exists|a file of that name" if below else reason
    with pytest.raises(
        tn.errors.ExportError, match=f"cannot export to .*file.*: .*({reason}).*expected a folder"
    ):
        nano.export(target)
    assert not target.is_dir()


@pytest.mark.parametrize("error", [PermissionError, OSError])
def test_a_folder_that_cannot_be_written_is_an_export_error(nano, tmp_path, monkeypatch, error):
    def refuse(*arguments):
        raise error(13, "no room for more")

    monkeypatch.setattr(export, "write_file", refuse)
    with pytest.raises(tn.errors.ExportError, match=r"cannot export to .*no room for more") as caught:
        nano.export(tmp_path / "new")
    assert isinstance(caught.value, OSError) and isinstance(caught.value.__cause__, error)


def test_a_folder_name_that_is_too_long_is_an_export_error(nano):
    with pytest.raises(tn.errors.ExportError, match="expected a folder"):
        nano.export("a" * 300)


def test_training_does_not_change_an_export(nano_with_head, tmp_path):
    nano_with_head.head.fit(torch.zeros(1, 16, dtype=torch.int8), torch.tensor([0]))
    nano_with_head.export(tmp_path)
    assert (tmp_path / "model.nano").read_bytes() == nano_with_head.image
    nano_with_head.head.reset()
