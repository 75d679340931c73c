//! Operators for tests, which use abilities of the contract that no operator of the crate needs. The board's program of the same test has them, too.

#[cfg(feature = "alloc")]
use nano_core::image::Cost;
use nano_core::image::Dtype;
use nano_core::{Alias, BrokenRule, Io, Kernel, Node, Operator, Output, Quantization, Run};

/// A gated recurrent unit, simplified: from inputs x and state h of `units` int16,
/// `z = clamp((b_z + W_z x + U_z (h >> 8)) / 64 + 2^14, 0, 2^15 - 1)`, `c = clamp(b_c + W_c x + U_c (h >> 8))`, `h += (c - h) z / 2^15`; it gives
/// `h >> 8`, and the state itself. Divisions round down.
static GRU: Operator = Operator {
    name: "gru",
    attributes: &["units"],
    inputs: 1..=1,
    outputs: &[Output::OWN, Output { quantization: Quantization::Own, reset: Some(reset_gru) }],
    alias: Alias::Never,
    shape: |node, _| match *node.attributes() {
        [units] if units > 0 => Ok([1, 1, units as u32]),
        _ => Err(BrokenRule { rule: "needs units", value: 0 }),
    },
    macs: |node| (2 * node.output(0).len() * (node.input(0).len() + node.output(0).len())) as u64,
};

/// At the start, a unit's state is the low half of `b_c`.
fn reset_gru(node: &Node<'_>, state: &mut [i8]) {
    let (_, biases) = gru_constants(node).expect("checked");
    let (units, _) = state.as_chunks_mut::<2>();
    for (unit, &bias) in units.iter_mut().zip(&biases[biases.len() / 2..]) {
        *unit = (bias as i16).to_le_bytes().map(|byte| byte as i8);
    }
}

pub const GRU_KERNEL: Kernel = Kernel {
    id: 1000,
    name: "gru",
    operator: &GRU,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int8, Dtype::Int16],
    pitched: false,
    forms: &[0],
    check: |node| {
        let (inputs, units) = (node.input(0).len(), node.output(0).len());
        let (weights, biases) = gru_constants(node)?;
        let right = weights.len() == 2 * units * (inputs + units) && biases.len() == 2 * units;
        let right = right && node.scratch_length() == 2 * units && inputs + units <= 1000;
        let bounded = biases.iter().all(|bias| bias.abs() <= 1 << 20);
        if right && bounded {
            return Ok(());
        }
        Err(BrokenRule { rule: "wrong constants", value: units as i64 })
    },
    run: Run::Apart(run_gru),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(Cost::instructions(layer.macs)),
    #[cfg(feature = "alloc")]
    pack: |layer| {
        let (inputs, units) = (layer.inputs[0].len(), layer.outputs[0].len());
        let weights = layer.int8("weights", 2 * units * (inputs + units))?;
        let biases = layer.int32("bias", 2 * units)?;
        Ok(nano_core::image::Packed {
            constants: vec![weights.iter().map(|&w| w as u8).collect(), words(biases)],
            scratch_length: 2 * units,
            ..Default::default()
        })
    },
};

#[cfg(feature = "alloc")]
fn words(words: &[i32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Weights [2][units][inputs + units], z before c, and biases [2][units].
fn gru_constants<'a>(node: &Node<'a>) -> Result<(&'a [i8], &'a [i32]), BrokenRule> {
    Ok((node.constant(0)?, node.constant(1)?))
}

fn run_gru(node: &Node<'_>, io: Io<'_>) {
    let Io { inputs, mut outputs, scratch } = io;
    let (x, y, state) = (inputs.get::<i8>(0), outputs.take::<i8>(), outputs.take::<i16>());
    let (weights, biases) = gru_constants(node).expect("checked");
    let (units, row) = (state.len(), x.len() + state.len());
    let sum = |gate: usize, unit: usize| {
        let weights = &weights[(gate * units + unit) * row..][..row];
        let seen = x.iter().map(|&x| i32::from(x)).chain(state.iter().map(|&h| i32::from(h >> 8)));
        seen.zip(weights).map(|(x, &weight)| x * i32::from(weight)).sum::<i32>() + biases[gate * units + unit]
    };
    // All units read the previous state.
    let next = scratch.as_chunks_mut::<2>().0;
    for (unit, next) in next.iter_mut().enumerate() {
        let z = ((sum(0, unit) >> 6) + (1 << 14)).clamp(0, (1 << 15) - 1);
        let c = sum(1, unit).clamp(-(1 << 15), (1 << 15) - 1);
        let h = i32::from(state[unit]);
        *next = ((h + (((c - h) * z) >> 15)) as i16).to_le_bytes().map(|byte| byte as i8);
    }
    for ((state, y), next) in state.iter_mut().zip(y).zip(next) {
        *state = i16::from_le_bytes(next.map(|byte| byte as u8));
        *y = (*state >> 8) as i8;
    }
}

/// A fully connected layer on int16: `acc = bias + sum x w`, and from there an int32 `acc`, or an int16 `clamp(acc >> shift)`.
static WIDE: Operator = Operator {
    name: "wide",
    attributes: &["shift"],
    inputs: 1..=1,
    outputs: &[Output::OWN],
    alias: Alias::Never,
    shape: |node, _| Ok([1, 1, node.output(0).shape[2]]),
    macs: |node| (node.input(0).len() * node.output(0).len()) as u64,
};

pub const WIDE_KERNEL: Kernel = wide(1001, "wide", &[Dtype::Int16], |node, mut io| {
    let shift = node.attributes()[0];
    let y = io.outputs.take::<i16>();
    accumulators(node, io.inputs.get(0), |index, sum| {
        y[index] = (sum >> shift).clamp(i16::MIN.into(), i16::MAX.into()) as i16;
    });
});

pub const WIDE_SUMS_KERNEL: Kernel = wide(1002, "wide_sums", &[Dtype::Int32], |node, mut io| {
    let y = io.outputs.take::<i32>();
    accumulators(node, io.inputs.get(0), |index, sum| y[index] = sum);
});

const fn wide(id: u16, name: &'static str, outputs: &'static [Dtype], run: fn(&Node<'_>, Io<'_>)) -> Kernel {
    Kernel {
        id,
        name,
        operator: &WIDE,
        inputs: &[Dtype::Int16],
        outputs,
        pitched: false,
        forms: &[0],
        check: |node| {
            let (inputs, outputs) = (node.input(0).len(), node.output(0).len());
            let (weights, biases) = (node.constant::<i8>(0)?, node.constant::<i32>(1)?);
            let right = weights.len() == inputs * outputs && biases.len() == outputs && inputs <= 256;
            let bounded = biases.iter().all(|bias| bias.abs() <= 1 << 28) && !weights.contains(&-128);
            if right && bounded && node.scratch_length() == 0 && matches!(node.attributes(), [0..=31]) {
                return Ok(());
            }
            Err(BrokenRule { rule: "wrong constants", value: outputs as i64 })
        },
        run: Run::Apart(run),
        #[cfg(feature = "alloc")]
        cost: |layer| Some(Cost::instructions(layer.macs)),
        #[cfg(feature = "alloc")]
        pack: |layer| {
            let (inputs, outputs) = (layer.inputs[0].len(), layer.outputs[0].len());
            let weights = layer.int8("weights", inputs * outputs)?.iter().map(|&w| w as u8).collect();
            let constants = vec![weights, words(layer.int32("bias", outputs)?)];
            Ok(nano_core::image::Packed { constants, ..Default::default() })
        },
    }
}

fn accumulators(node: &Node<'_>, x: &[i16], mut store: impl FnMut(usize, i32)) {
    let weights = node.constant::<i8>(0).expect("checked");
    let biases = node.constant::<i32>(1).expect("checked");
    for (index, (weights, bias)) in weights.chunks_exact(x.len()).zip(biases).enumerate() {
        let products = x.iter().zip(weights).map(|(&x, &weight)| i32::from(x) * i32::from(weight));
        store(index, bias + products.sum::<i32>());
    }
}

/// Splits each int16 at a bit: `y = x >> shift`, and the rest `x - (y << shift)`. It runs in place, and has two outputs.
static SPLIT_BITS: Operator = Operator {
    name: "split_bits",
    attributes: &["shift"],
    inputs: 1..=1,
    outputs: &[Output::OWN, Output::OWN],
    alias: Alias::Elementwise,
    shape: |node, _| Ok(node.input(0).shape),
    macs: |_| 0,
};

pub const SPLIT_BITS_KERNEL: Kernel = Kernel {
    id: 1003,
    name: "split_bits",
    operator: &SPLIT_BITS,
    inputs: &[Dtype::Int16],
    outputs: &[Dtype::Int16, Dtype::Int16],
    pitched: false,
    forms: &[0],
    check: |node| match node.attributes() {
        [0..=15] => Ok(()),
        _ => Err(BrokenRule { rule: "the shift is not 0 to 15", value: node.attributes()[0].into() }),
    },
    run: Run::InPlace(|node, memory| {
        let (shift, x) = (node.attributes()[0], memory.input::<i16>(0));
        let (high, low) = (memory.output::<i16>(0), memory.output::<i16>(1));
        for ((x, high), low) in x.iter().zip(high).zip(low) {
            let number = x.get();
            high.set(number >> shift);
            low.set(number - (number >> shift << shift));
        }
    }),
    #[cfg(feature = "alloc")]
    cost: |layer| Some(Cost::instructions(layer.outputs[0].len() as u64)),
    #[cfg(feature = "alloc")]
    pack: |_| Ok(Default::default()),
};

/// The kernels of this file after those of the crate, of which a test's models use some.
pub const KERNELS: &[Kernel] = &[
    nano_core::ops::TABLE,
    nano_core::ops::FULLY_CONNECTED,
    nano_core::ops::SOFTMAX,
    GRU_KERNEL,
    WIDE_KERNEL,
    WIDE_SUMS_KERNEL,
    SPLIT_BITS_KERNEL,
    nano_core::ops::MOVE,
    nano_core::ops::MOVE_VIEW,
    nano_core::ops::CONCAT,
    nano_core::ops::HISTORY,
    nano_core::ops::REQUANTIZE_INT16_TO_INT8,
];
