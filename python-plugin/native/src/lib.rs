//! nano-core for CPython: the native extension of the package `torch_nano`.

mod batch;
mod description;
mod device;
mod elements;
mod head;
mod head_description;
mod model;
mod protocol;
mod requantize;
mod sensing;
mod stream;
mod weights;

use nano_core::fixed_point::{Multiplier, WideMultiplier};
use nano_core::image::{Dtype, LONGEST_NAME, LayerEstimate, WriteError};
use nano_core::ops::{self, AddParameters, LayerNormParameters, LogSoftmaxParameters, SoftmaxParameters};
use nano_core::train::{LARGEST_EPOCHS, LdaHead, TEMPERATURE_STEPS};
use nano_core::{ALIKE, Kernel, Quantization};
use numpy::{PyArray2, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

pyo3::create_exception!(
    torch_nano._native,
    NanoError,
    PyValueError,
    "nano-core refused an image, a layer or a buffer; the message says why."
);

pyo3::create_exception!(
    torch_nano._native,
    SettingError,
    NanoError,
    "A setting of a head is invalid for this layer; the message says which, what it is and what it could be."
);

pyo3::create_exception!(
    torch_nano._native,
    KernelError,
    NanoError,
    "None of the kernels that may be used computes a layer, or there is no kernel of a name; the message says which."
);

/// Converts an error of nano-core to Python's `NanoError`.
fn refuse(error: impl std::fmt::Display) -> PyErr {
    NanoError::new_err(error.to_string())
}

/// nano-core's operators by name; `_native.pyi` documents the fields.
#[pyfunction]
fn operators(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let operators = PyDict::new(py);
    for kernel in ops::ALL {
        let operator = kernel.operator;
        if operators.contains(operator.name)? {
            continue;
        }
        let entry = PyDict::new(py);
        entry.set_item("attributes", operator.attributes)?;
        entry.set_item("inputs", (*operator.inputs.start(), *operator.inputs.end()))?;
        let kernels = || ops::ALL.iter().filter(|kernel| kernel.operator.name == operator.name);
        let mut dtypes: Vec<_> = kernels().flat_map(signatures).collect();
        dtypes.dedup();
        entry.set_item("dtypes", dtypes)?;
        let rules = operator.outputs.iter().map(|output| rule(py, output.quantization));
        entry.set_item("quantization", rules.collect::<PyResult<Vec<_>>>()?)?;
        entry.set_item("states", operator.outputs.iter().map(|output| output.reset.is_some()).collect::<Vec<_>>())?;
        let of_kernels = PyDict::new(py);
        kernels().try_for_each(|kernel| of_kernels.set_item(kernel.name, signatures(kernel)))?;
        entry.set_item("kernels", of_kernels)?;
        operators.set_item(operator.name, entry)?;
    }
    Ok(operators)
}

/// The dtypes of a kernel's inputs and outputs; of a kernel that moves bytes, those for each dtype.
fn signatures(kernel: &Kernel) -> Vec<(Vec<&'static str>, Vec<&'static str>)> {
    let alike: &[Dtype] = if kernel.inputs == ALIKE { &Dtype::ALL } else { &kernel.inputs[..1] };
    let names = |dtypes: &[Dtype], count: usize, alike: Dtype| match dtypes {
        ALIKE => vec![alike.name(); count],
        _ => dtypes.iter().map(|dtype| dtype.name()).collect(),
    };
    let outputs = kernel.operator.outputs.len();
    alike.iter().map(|&dtype| (names(kernel.inputs, 1, dtype), names(kernel.outputs, outputs, dtype))).collect()
}

/// The rule for the quantization of an output.
fn rule(py: Python<'_>, quantization: Quantization) -> PyResult<Bound<'_, PyDict>> {
    let rule = PyDict::new(py);
    let name = match quantization {
        Quantization::Own | Quantization::PowerOfTwo => {
            rule.set_item("power_of_two", quantization == Quantization::PowerOfTwo)?;
            "own"
        }
        Quantization::SameAs(input) => {
            rule.set_item("input", input)?;
            "same_as"
        }
        Quantization::Fixed { scale, zero_point } => {
            rule.set_item("scale", scale)?;
            rule.set_item("zero_point", zero_point)?;
            "fixed"
        }
        Quantization::Shared => "shared",
    };
    rule.set_item("rule", name)?;
    Ok(rule)
}

/// Packs the layers, plans the arena and writes the `.nano` image of a model description, with `kernels` only, given by name (None: all).
#[pyfunction]
#[pyo3(signature = (description, kernels=None))]
fn write_image<'py>(
    py: Python<'py>,
    description: &Bound<'py, PyAny>,
    kernels: Option<Vec<String>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let model = description::read(description)?;
    let kernels: Vec<Kernel> = match kernels {
        None => ops::ALL.to_vec(),
        Some(names) => names.iter().map(|name| kernel(name)).collect::<PyResult<_>>()?,
    };
    let image = nano_core::image::write_with(&model, &kernels).map_err(|error| match error {
        WriteError::Setting { .. } => SettingError::new_err(error.to_string()),
        WriteError::NoKernel(_) => KernelError::new_err(error.to_string()),
        _ => refuse(error),
    })?;
    Ok(PyBytes::new(py, &image))
}

/// For each layer of the image that `write_image` writes of a description, the kernels that could compute it, and what each takes;
/// `_native.pyi` documents the fields.
#[pyfunction]
fn estimate_kernels<'py>(py: Python<'py>, description: &Bound<'py, PyAny>) -> PyResult<Vec<Vec<Bound<'py, PyDict>>>> {
    let estimates = nano_core::image::estimate(&description::read(description)?, ops::ALL).map_err(refuse)?;
    let of_layer = |layer: LayerEstimate| {
        let alternatives = layer.alternatives.into_iter().map(|one| {
            let entry = PyDict::new(py);
            entry.set_item("kernel", one.kernel)?;
            entry.set_item("chosen", one.kernel == layer.kernel)?;
            entry.set_item("instructions", one.instructions)?;
            entry.set_item("cycles", one.cycles)?;
            entry.set_item("constant_bytes", one.flash)?;
            entry.set_item("scratch_bytes", one.scratch)?;
            Ok(entry)
        });
        alternatives.collect()
    };
    estimates.into_iter().map(of_layer).collect()
}

/// The kernel of this name.
fn kernel(name: &str) -> PyResult<Kernel> {
    let found = ops::ALL.iter().find(|kernel| kernel.name == name);
    found.copied().ok_or_else(|| KernelError::new_err(format!("nano-core has no kernel {name:?}")))
}

/// Whether this is a valid name of a class.
#[pyfunction]
fn is_label(name: &str) -> bool {
    nano_core::image::is_label(name)
}

type Pair = (i32, i32);

fn pair(multiplier: Multiplier) -> Pair {
    (multiplier.mantissa, multiplier.shift)
}

/// The Q31 mantissa and the power of two of a real multiplier.
#[pyfunction]
fn quantize_multiplier(real: f64) -> PyResult<Pair> {
    Multiplier::from_real(real).map(pair).ok_or_else(|| refuse(format!("the multiplier {real} is not in [0, 2^30)")))
}

/// The Q15 mantissa and the right shift of a real multiplier of int16 layers.
#[pyfunction]
fn quantize_wide_multiplier(real: f64) -> PyResult<Pair> {
    let refused = || refuse(format!("the multiplier {real} of an int16 layer is not in [0, 2^7)"));
    WideMultiplier::from_real(real).map(|WideMultiplier { mantissa, shift }| (mantissa, shift)).ok_or_else(refused)
}

/// The left shift of both inputs of an addition of this dtype, and its multipliers: first input, second input, output.
#[pyfunction]
fn add_parameters(dtype: &str, first: f32, second: f32, output: f32) -> PyResult<(u32, Pair, Pair, Pair)> {
    let given = Dtype::ALL.into_iter().find(|one| one.name() == dtype);
    let AddParameters { first, second, output, raise } = given
        .and_then(|dtype| AddParameters::new(dtype, first, second, output))
        .ok_or_else(|| refuse(format!("no addition of {dtype} of scales {first} and {second} to scale {output}")))?;
    Ok((raise, pair(first), pair(second), pair(output)))
}

/// Softmax's input multiplier (mantissa, shift) and the smallest difference that does not count as minus infinity.
#[pyfunction]
fn softmax_parameters(scale: f32) -> PyResult<(i32, i32, i32)> {
    let SoftmaxParameters { multiplier, smallest_difference } = SoftmaxParameters::new(scale)
        .ok_or_else(|| refuse(format!("the softmax input scale {scale} is not above 2^-26")))?;
    Ok((multiplier.mantissa, multiplier.shift, smallest_difference))
}

/// Of a logarithm of softmax the multiplier (mantissa, shift) from fixed-point differences back to integer ones.
#[pyfunction]
fn log_softmax_multiplier(scale: f32) -> PyResult<(i32, i32)> {
    let LogSoftmaxParameters { reverse, .. } = LogSoftmaxParameters::new(scale)
        .ok_or_else(|| refuse(format!("the log_softmax input scale {scale} is not above 2^-25")))?;
    Ok((reverse.mantissa, reverse.shift))
}

/// The integers of a layer or RMS normalization: epsilon, and \[multiplier, addend, shift\] of each channel.
#[pyfunction]
fn layer_norm_parameters<'py>(
    py: Python<'py>,
    weights: PyReadonlyArray1<'py, f32>,
    biases: PyReadonlyArray1<'py, f32>,
    epsilon: f32,
    input_scale: f32,
    output: (f32, i32),
) -> PyResult<(u64, Bound<'py, PyArray2<i32>>)> {
    let LayerNormParameters { epsilon, channels } =
        LayerNormParameters::new(weights.as_slice()?, biases.as_slice()?, epsilon, input_scale, output)
            .map_err(|(rule, value)| refuse(format!("layer_norm: {rule}: {value}")))?;
    let rows: Vec<_> = channels.iter().map(|channel| vec![channel.multiplier, channel.addend, channel.shift]).collect();
    Ok((epsilon, PyArray2::from_vec2(py, &rows)?))
}

/// nano-core's table of the sigmoid.
#[pyfunction]
fn sigmoid_table() -> Vec<u16> {
    nano_core::sigmoid::TABLE.to_vec()
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("NanoError", module.py().get_type::<NanoError>())?;
    module.add("SettingError", module.py().get_type::<SettingError>())?;
    module.add("KernelError", module.py().get_type::<KernelError>())?;
    module.add("PROTOCOL", protocol::VERSION)?;
    module.add("LARGEST_COUNT", u32::MAX)?;
    module.add("LARGEST_EPOCHS", LARGEST_EPOCHS)?;
    module.add("TEMPERATURE_STEPS", TEMPERATURE_STEPS)?;
    module.add("LONGEST_NAME", LONGEST_NAME)?;
    module.add("ONE_PASS_LIMIT", nano_core::ops::ONE_PASS_LIMIT)?;
    module.add("SHRINKAGE", (*LdaHead::SHRINKAGE.start(), *LdaHead::SHRINKAGE.end()))?;
    module.add_function(wrap_pyfunction!(is_label, module)?)?;
    module.add_class::<model::Model>()?;
    module.add_class::<stream::Stream>()?;
    module.add_class::<head::Head>()?;
    module.add_function(wrap_pyfunction!(operators, module)?)?;
    module.add_function(wrap_pyfunction!(model::processors, module)?)?;
    module.add_function(wrap_pyfunction!(write_image, module)?)?;
    module.add_function(wrap_pyfunction!(estimate_kernels, module)?)?;
    module.add_function(wrap_pyfunction!(quantize_multiplier, module)?)?;
    module.add_function(wrap_pyfunction!(quantize_wide_multiplier, module)?)?;
    module.add_function(wrap_pyfunction!(add_parameters, module)?)?;
    module.add_function(wrap_pyfunction!(softmax_parameters, module)?)?;
    module.add_function(wrap_pyfunction!(log_softmax_multiplier, module)?)?;
    module.add_function(wrap_pyfunction!(layer_norm_parameters, module)?)?;
    module.add_function(wrap_pyfunction!(sigmoid_table, module)?)?;
    module.add_function(wrap_pyfunction!(weights::quantize_channels, module)?)?;
    module.add_function(wrap_pyfunction!(weights::largest_partial_sum, module)?)?;
    module.add_function(wrap_pyfunction!(requantize::requantize_, module)?)?;
    module.add_function(wrap_pyfunction!(requantize::look_up_pairs, module)?)?;
    module.add_function(wrap_pyfunction!(requantize::look_up, module)?)?;
    module.add_function(wrap_pyfunction!(protocol::encode_request, module)?)?;
    module.add_function(wrap_pyfunction!(protocol::decode_response, module)?)?;
    module.add_function(wrap_pyfunction!(protocol::crc32, module)?)?;
    module.add_function(wrap_pyfunction!(sensing::check_sensor, module)?)?;
    module.add_function(wrap_pyfunction!(sensing::encode_recorded_sensor, module)?)?;
    module.add_class::<sensing::SensingTwin>()?;
    module.add_function(wrap_pyfunction!(device::session_ram, module)?)?;
    module.add_function(wrap_pyfunction!(device::classifier_ram, module)?)?;
    module.add_function(wrap_pyfunction!(device::training_ram, module)?)?;
    module.add_function(wrap_pyfunction!(device::update_room, module)?)?;
    module.add_class::<device::SimulatedDevice>()
}
