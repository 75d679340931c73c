"""The exported crate: it builds for the host and the chip, and gives the bytes of its NanoModule."""

import numpy as np
import pytest
import torch
import torch_nano as tn
from fusion import data, fusion
from networks import ConvNet1d, inputs, make
from torch import nn

from .exported import NANO_CORE, REPOSITORY, run_crate, run_crate_on_board
from .streaming_networks import strided

SAMPLES = 12

#: A program's functions to read numbers from its input.
READ = """
use std::io::Read;

fn numbers<const LENGTH: usize, T: From<u8> + Copy>(from: fn([u8; 4]) -> T) -> [T; LENGTH] {
    let mut numbers = [T::from(0); LENGTH];
    for number in &mut numbers {
        let mut bytes = [0; 4];
        std::io::stdin().read_exact(&mut bytes).unwrap();
        *number = from(bytes);
    }
    numbers
}
"""


def in_order(x):
    """The bytes of float32 numbers (channels, length): height, width, channels."""
    return x.movedim(0, -1).contiguous().float().numpy().tobytes()


def with_head(head):
    model = make(ConvNet1d)
    tn.freeze(model, "features")
    x = inputs((3, 40), 64)
    labels = ["a", 'b "quoted"', "c\\d", "\u00e9t\u00e9", "type"]
    # Half of the inputs are rejected.
    rejection = tn.heads.Rejection((x, torch.arange(64) % 5), false_alarms=0.5)
    return tn.to_nano(model, x, calibrate=x, labels=labels, name='net "1"', head=head, rejection=rejection)


@pytest.mark.parametrize(
    "head", [tn.heads.SGD(0.05), tn.heads.LDA(capacity=7)], ids=lambda head: type(head).__name__
)
def test_the_crate_classifies_and_learns_to_the_same_bytes(head, tmp_path):
    program = f"""{READ}
    use nano_core::train::Head;
    use net_1::{{Classifier, Memory, Target, classes}};

    fn main() {{
        let mut memory: Memory = Memory::new();
        let mut classifier = Classifier::new(&mut memory).unwrap();
        let windows: [[f32; 120]; {SAMPLES}] = core::array::from_fn(|_| numbers(f32::from_le_bytes));
        for round in 0..2 {{
            for window in &windows {{
                let made = classifier.classify(window);
                let logits = classifier.inner.logits().unwrap();
                let sure = [made.confidence.unwrap(), made.margin.unwrap()];
                println!("{{}} {{sure:?}} {{}} {{logits:?}}", made.class, made.known);
            }}
            if round == 0 {{
                for (window, index) in windows.iter().zip(0..) {{
                    classifier.learn(window, Target::Class(index % 5)).unwrap();
                }}
                classifier.train(3).unwrap();
            }}
        }}
        println!("{{:?}}", classifier.inner.head().unwrap().state());
        let named = [classes::A, classes::B__QUOTED_, classes::\u00c9T\u00c9];
        println!("{{}} {{named:?}}", classifier.name(1));
    }}
    """
    nano = with_head(head)
    x = inputs((3, 40), SAMPLES)
    printed = run_crate(nano, tmp_path, program, b"".join(map(in_order, x))).decode().splitlines()
    assert printed == [*learnt(nano, head, x), 'b "quoted" [0, 1, 3]']


@pytest.mark.parametrize(
    "head", [tn.heads.SGD(0.05), tn.heads.LDA(capacity=7)], ids=lambda head: type(head).__name__
)
def test_the_crate_has_the_same_bytes_on_the_chip(head, tmp_path):
    program = f"""
    use nano_core::train::Head;
    use net_1::{{Classifier, Memory, Target}};

    /// As `{{:?}}` prints it, which programs for chips are built without.
    struct List<'a, T>(&'a [T]);

    impl<T: core::fmt::Display> core::fmt::Display for List<'_, T> {{
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {{
            for (index, item) in self.0.iter().enumerate() {{
                write!(f, "{{}}{{item}}", if index == 0 {{ "[" }} else {{ ", " }})?;
            }}
            f.write_str("]")
        }}
    }}

    /// A window of the numbers where a model image lies.
    fn window(index: usize) -> [f32; 120] {{
        let (numbers, _) = board::image().as_chunks();
        core::array::from_fn(|number| f32::from_le_bytes(numbers[index * 120 + number]))
    }}

    extern "C" fn main() -> ! {{
        static mut MEMORY: Memory = Memory::new();
        board::protect_flash();
        let before = board::instructions();
        // SAFETY: `main` runs once.
        let mut classifier = Classifier::new(unsafe {{ (&raw mut MEMORY).as_mut_unchecked() }}).unwrap();
        for round in 0..2 {{
            for index in 0..{SAMPLES} {{
                let made = classifier.classify(&window(index));
                let logits = classifier.inner.logits().unwrap();
                let sure = [made.confidence.unwrap(), made.margin.unwrap()];
                let (sure, logits) = (List(&sure), List(logits));
                board::say(format_args!("{{}} {{sure}} {{}} {{logits}}", made.class, made.known));
            }}
            if round == 0 {{
                for index in 0..{SAMPLES} {{
                    classifier.learn(&window(index), Target::Class(index as u16 % 5)).unwrap();
                }}
                classifier.train(3).unwrap();
            }}
        }}
        board::say(format_args!("{{}}", List(classifier.inner.head().unwrap().state())));
        board::exit(board::instructions() > before)
    }}
    """
    nano = with_head(head)
    x = inputs((3, 40), SAMPLES)
    printed = run_crate_on_board(nano, tmp_path, program, b"".join(map(in_order, x))).decode().splitlines()
    assert printed == learnt(nano, head, x)


def learnt(nano, head, x):
    """What the programs print of the windows x before and after they learn them, and of the head."""
    expected = predictions(nano, x)
    features, labels = nano.features_int8(x), torch.arange(SAMPLES) % 5
    nano.head.fit(features, labels, **({"epochs": 3} if isinstance(head, tn.heads.SGD) else {}))
    expected += predictions(nano, x)
    assert expected[:SAMPLES] != expected[SAMPLES:], "nothing was learnt"
    for known in ("true", "false"):
        assert any(f"] {known} [" in line for line in expected), f"no prediction has known={known}"
    return [*expected, str(list(nano.head.state()))]


def predictions(nano, x):
    """Class, confidence and margin, whether it is known, and logits, as the device gives them."""
    lines = []
    with tn.Device(tn.device.SimulatedBoard(nano.image)) as device:
        device.write_head(nano.head.state())
        for window, logits in zip(
            nano.device_inputs(x), nano.forward_int8(nano.quantize_input(x)), strict=True
        ):
            made = device.predict(window)
            sure = [round(made.confidence * 2**15), round(made.margin * 2**15)]
            lines.append(f"{made.label} {sure} {str(made.known).lower()} {logits.tolist()}")
    return lines


def test_a_crate_has_all_inputs_and_outputs(tmp_path):
    program = f"""{READ}
    use fusion::{{Classifier, Memory}};

    fn main() {{
        let mut memory: Memory = Memory::new();
        let mut classifier = Classifier::new(&mut memory).unwrap();
        let (motion, sound) = (numbers(f32::from_le_bytes), numbers(f32::from_le_bytes));
        let made = classifier.classify(&motion, &sound);
        println!("{{}}", made.class);
        for number in classifier.output_kind().into_iter().chain(classifier.output_level()) {{
            println!("{{number:e}}");
        }}
    }}
    """
    batch = data()
    nano = tn.to_nano(fusion(), batch, calibrate=batch)
    sample = {name: torch.as_tensor(x[:1]) for name, x in batch.items()}
    sent = b"".join(in_order(x[0]) for x in sample.values())
    printed = run_crate(nano, tmp_path, program, sent).decode().splitlines()
    outputs = nano(**sample)
    assert int(printed[0]) == int(outputs["kind"].argmax())
    real = np.array(printed[1:], np.float32)
    assert real.tolist() == [*outputs["kind"][0].tolist(), *outputs["level"][0].tolist()]


class Words(nn.Module):
    """The index of the likeliest of five classes for three words."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(9, 4)
        self.score = nn.Linear(12, 5)

    def forward(self, target):
        return self.score(self.rows(target).flatten(1)).argmax(1)


def test_inputs_and_outputs_of_indices_are_integers(tmp_path):
    program = f"""{READ}
    fn main() {{
        let mut memory: words::Memory = words::Memory::new();
        let mut classifier = words::Classifier::new(&mut memory).unwrap();
        for _ in 0..{SAMPLES} {{
            let made = classifier.classify(&numbers(i32::from_le_bytes));
            println!("{{}} {{:?}} {{:?}}", made.class, made.confidence, classifier.output());
        }}
    }}
    """
    torch.manual_seed(0)
    words = torch.randint(9, (SAMPLES, 3))
    nano = tn.to_nano(Words(), words, calibrate=words)
    sent = words.to(torch.int32).numpy().tobytes()
    printed = run_crate(nano, tmp_path, program, sent).decode().splitlines()
    assert printed == [f"{index} None [{index}]" for index in nano(words).flatten().tolist()]


def test_a_stream_goes_step_by_step(tmp_path):
    model, x = strided().eval(), inputs((3, 63), 32)
    stream = tn.to_nano(model, x, calibrate=x, name="steps").stream()
    steps = [step for step in x[0].split(stream.step_length, -1) if step.shape[1] == stream.step_length]
    rows = steps[0].shape[1] * steps[0].shape[0]
    program = f"""{READ}
    fn main() {{
        let mut memory: steps::Memory = steps::Memory::new();
        let mut classifier = steps::Classifier::new(&mut memory).unwrap();
        let steps: [[f32; {rows}]; {len(steps)}] = core::array::from_fn(|_| numbers(f32::from_le_bytes));
        for _ in 0..2 {{
            for step in &steps {{
                classifier.classify(step);
                println!("{{:?}}", classifier.output());
            }}
            classifier.reset_states();
        }}
    }}
    """
    printed = run_crate(stream.nano, tmp_path, program, b"".join(map(in_order, steps))).decode().splitlines()
    expected = [in_order(stream.step(step)) for step in steps]
    made = [np.array(line.strip("[]").split(", "), np.float32).tobytes() for line in printed]
    assert made == 2 * expected


def test_the_manifest_names_nano_core_by_version_and_by_folder(nano, tmp_path):
    nano.export(tmp_path / "published", crate=True)
    version = tn.__version__
    assert f'nano-core = "{version}"\n' in (tmp_path / "published/Cargo.toml").read_text()
    nano.export(tmp_path / "checkout", crate=True, nano_core=NANO_CORE)
    manifest = (tmp_path / "checkout/Cargo.toml").read_text()
    (path,) = [line.split('path = "')[1].split('"')[0] for line in manifest.splitlines() if "path" in line]
    assert (tmp_path / "checkout" / path).resolve() == NANO_CORE.resolve()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crate": "yes"}, "crate is 'yes'; expected True or False"),
        (
            {"nano_core": "nano-core"},
            "nano_core is 'nano-core', which only a crate needs; expected crate=True",
        ),
        ({"crate": True, "nano_core": 3}, "nano_core is 3; expected a path"),
        (
            {"crate": True, "nano_core": "missing"},
            "missing', not that crate; expected the folder of the crate",
        ),
        ({"crate": True, "nano_core": REPOSITORY / "esp32-app/device"}, "device', not that crate"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_written(nano, tmp_path, options, message):
    with pytest.raises(tn.errors.InputError) as refused:
        nano.export(tmp_path / "new", **options)
    assert message in str(refused.value)
    assert not (tmp_path / "new").exists()


def test_another_version_of_nano_core_is_refused(nano, tmp_path):
    (tmp_path / "Cargo.toml").write_text('[package]\nname = "nano-core"\nversion = "99.0.0"\n')
    with pytest.raises(tn.errors.InputError, match=f"version 99.0.0; expected .* nano-core {tn.__version__}"):
        nano.export(tmp_path / "new", crate=True, nano_core=tmp_path)


@pytest.mark.parametrize("name", ["Cargo.toml", "README.md", "src/lib.rs"])
def test_files_of_others_are_not_overwritten(nano, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(tn.errors.ExportError, match=f"{name} exists"):
        nano.export(tmp_path, crate=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.read_text() for path in files] == ["mine"]
    # Its own it replaces.
    files[0].unlink()
    nano.export(tmp_path, crate=True)
    nano.export(tmp_path, crate=True)
