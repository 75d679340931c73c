//! Small models with random weights, written by the crate's own writer, and functions that damage their images.
#![allow(dead_code, reason = "every test program that includes this file uses its own part of it")]

use nano_core::image::{
    Dtype, HeadDescription, InputDescription, LayerDescription, LayersDescription, ModelDescription, Optimize,
    OutputDescription, SgdDescription, Tensor, TrainedLayer, ValueDescription, write_with,
};
use nano_core::train::{Descent, Loss};
use nano_core::{Kernel, ops};

mod aligned;
mod nets;

#[allow(unused_imports, reason = "every test program that includes this file uses its own part of it")]
pub use {aligned::*, nets::*};

/// Scale of every value unless said otherwise.
pub const SCALE: f32 = 0.05;
/// Zero point of every value unless said otherwise.
pub const ZERO_POINT: i32 = -3;

/// A model under construction.
pub struct Builder {
    pub model: ModelDescription,
    /// Scale of the weights of the layers that are added next.
    pub weight_scale: f32,
    /// The kernels of its image: at first the portable ones, whose constants and scratch memory tests know.
    pub kernels: Vec<Kernel>,
    random: fastrand::Rng,
}

/// All kernels but those that compute the same faster on a chip.
pub fn portable() -> Vec<Kernel> {
    const FASTER: [&str; 6] = ["_pairs", "_narrow", "_one_pixel", "_lines", "_direct", "_winograd"];
    let faster = |kernel: &&Kernel| FASTER.iter().any(|part| kernel.name.contains(part));
    ops::ALL.iter().filter(|kernel| !faster(kernel)).copied().collect()
}

/// A sliding window: height, then width.
#[derive(Clone, Copy)]
pub struct Window {
    pub kernel: [u32; 2],
    pub stride: [u32; 2],
    pub dilation: [u32; 2],
    /// Top, bottom, left, right.
    pub padding: [u32; 4],
}

impl Window {
    /// A dense window without padding.
    pub fn new(kernel: [u32; 2]) -> Self {
        Window { kernel, stride: [1, 1], dilation: [1, 1], padding: [0; 4] }
    }

    /// The shape of an output of `channels`.
    pub fn output(&self, input: [u32; 3], channels: u32) -> [u32; 3] {
        let side = |axis: usize| {
            let padded = input[axis] + self.padding[2 * axis] + self.padding[2 * axis + 1];
            (padded - self.dilation[axis] * (self.kernel[axis] - 1) - 1) / self.stride[axis] + 1
        };
        [side(0), side(1), channels]
    }

    fn attributes(&self) -> Vec<(&'static str, i64)> {
        let names = [
            "kernel_height",
            "kernel_width",
            "stride_height",
            "stride_width",
            "dilation_height",
            "dilation_width",
            "padding_top",
            "padding_bottom",
            "padding_left",
            "padding_right",
        ];
        let values = [self.kernel, self.stride, self.dilation].into_iter().flatten().chain(self.padding);
        names.into_iter().zip(values.map(i64::from)).chain(CLAMP).collect()
    }
}

/// The clamp that lets every int8 through.
pub const CLAMP: [(&str, i64); 2] = [("clamp_min", -128), ("clamp_max", 127)];

impl Builder {
    /// An empty model, with weights by `seed`.
    pub fn new(seed: u64) -> Self {
        let model = ModelDescription {
            name: "test".into(),
            labels: vec!["yes".into(), "no".into()],
            inputs: vec![],
            layers: vec![],
            outputs: vec![],
            head: None,
            rejection: None,
            weights_in_ram: 0,
            optimize: Optimize::Ram,
            budget: Default::default(),
            flash_timing: Default::default(),
            code: Vec::new(),
        };
        Builder { model, weight_scale: 0.004, kernels: portable(), random: fastrand::Rng::with_seed(seed) }
    }

    /// Adds a graph input; all of them come before the first layer.
    pub fn input(&mut self, shape: [u32; 3]) -> usize {
        assert!(self.model.layers.is_empty(), "the ids of inputs are below those of the layers' outputs");
        let index = self.model.inputs.len();
        let name = format!("input {index}");
        self.model.inputs.push(InputDescription { name, value: value(shape), channels: vec![] });
        index
    }

    /// An input of indices.
    pub fn indices(&mut self, length: u32) -> usize {
        let index = self.input([1, 1, length]);
        let value = &mut self.model.inputs[index].value;
        (value.dtype, value.scale, value.zero_point) = (Dtype::Int32, 1.0, 0);
        index
    }

    /// The description of value `id`.
    pub fn value(&mut self, id: usize) -> &mut ValueDescription {
        let ModelDescription { inputs, layers, .. } = &mut self.model;
        let outputs = layers.iter_mut().flat_map(|layer| &mut layer.outputs);
        inputs.iter_mut().map(|input| &mut input.value).chain(outputs).nth(id).expect("a value of the model")
    }

    /// Adds a layer of one output; returns the output's id.
    pub fn layer(
        &mut self,
        operator: &str,
        inputs: &[usize],
        output: ValueDescription,
        attributes: impl IntoIterator<Item = (&'static str, i64)>,
        tensors: impl IntoIterator<Item = (&'static str, Tensor)>,
    ) -> usize {
        self.model.layers.push(LayerDescription {
            operator: operator.into(),
            inputs: inputs.into(),
            outputs: vec![output],
            attributes: attributes.into_iter().map(|(name, value)| (name.into(), value)).collect(),
            tensors: tensors.into_iter().map(|(name, tensor)| (name.into(), tensor)).collect(),
        });
        let outputs = self.model.layers.iter().map(|layer| layer.outputs.len()).sum::<usize>();
        self.model.inputs.len() + outputs - 1
    }

    pub fn conv2d(&mut self, input: usize, channels: u32, groups: u32, window: Window) -> usize {
        let shape = self.value(input).shape;
        let output = value(window.output(shape, channels));
        let tensors = self.weights(channels, window.kernel[0] * window.kernel[1] * shape[2] / groups);
        let attributes = window.attributes().into_iter().chain([("groups", groups.into())]);
        self.layer("conv2d", &[input], output, attributes, tensors)
    }

    /// A transposed convolution of stride 1 without padding.
    pub fn conv_transpose2d(&mut self, input: usize, channels: u32, kernel: [u32; 2]) -> usize {
        let [height, width, inputs] = self.value(input).shape;
        let output = value([height + kernel[0] - 1, width + kernel[1] - 1, channels]);
        let tensors = self.weights(channels, kernel[0] * kernel[1] * inputs);
        let attributes = Window::new(kernel).attributes().into_iter().chain([("groups", 1)]);
        self.layer("conv_transpose2d", &[input], output, attributes, tensors)
    }

    pub fn depthwise_conv2d(&mut self, input: usize, window: Window) -> usize {
        let shape = self.value(input).shape;
        let output = value(window.output(shape, shape[2]));
        let tensors = self.weights(shape[2], window.kernel[0] * window.kernel[1]);
        self.layer("depthwise_conv2d", &[input], output, window.attributes(), tensors)
    }

    pub fn fully_connected(&mut self, input: usize, channels: u32) -> usize {
        let inputs = self.value(input).shape.iter().product();
        let output = value([1, 1, channels]);
        let tensors = self.weights(channels, inputs);
        self.layer("fully_connected", &[input], output, CLAMP, tensors)
    }

    pub fn max_pool2d(&mut self, input: usize, window: Window) -> usize {
        let shape = self.value(input).shape;
        let output = value(window.output(shape, shape[2]));
        self.layer("max_pool2d", &[input], output, window.attributes(), [])
    }

    pub fn average_pool2d(&mut self, input: usize, window: Window, count_include_pad: i64) -> usize {
        let shape = self.value(input).shape;
        let output = value(window.output(shape, shape[2]));
        let attributes = window.attributes().into_iter().chain([("count_include_pad", count_include_pad)]);
        self.layer("average_pool2d", &[input], output, attributes, [])
    }

    pub fn add(&mut self, first: usize, second: usize, scale: f32) -> usize {
        self.pairwise("add", first, second, scale)
    }

    /// An elementwise operator of two inputs, which broadcast.
    pub fn pairwise(&mut self, operator: &str, first: usize, second: usize, scale: f32) -> usize {
        let shapes = [first, second].map(|id| self.value(id).shape);
        let output = ValueDescription { scale, ..value([0, 1, 2].map(|axis| shapes[0][axis].max(shapes[1][axis]))) };
        self.layer(operator, &[first, second], output, CLAMP, [])
    }

    /// A table of random entries.
    pub fn table(&mut self, input: usize) -> usize {
        let output = value(self.value(input).shape);
        let table = (0..256).map(|_| self.random.i8(..)).collect();
        self.layer("table", &[input], output, [], [("table", Tensor::Int8(table))])
    }

    pub fn requantize(&mut self, input: usize, scale: f32, zero_point: i32) -> usize {
        let output = ValueDescription { scale, zero_point, ..value(self.value(input).shape) };
        self.layer("requantize", &[input], output, CLAMP, [])
    }

    /// A history of this number of rows, which starts with zeros.
    pub fn history(&mut self, input: usize, rows: u32) -> usize {
        let before = *self.value(input);
        let [height, width, channels] = before.shape;
        let shape = if height == 1 { [1, width + rows, channels] } else { [height + rows, width, channels] };
        let output = ValueDescription { shape, state: true, ..before };
        let start = vec![before.zero_point as i8; channels as usize];
        self.layer("history", &[input], output, [("rows", rows.into())], [("start", Tensor::Int8(start))])
    }

    pub fn softmax(&mut self, input: usize) -> usize {
        let output = ValueDescription { scale: 1.0 / 256.0, zero_point: -128, ..value(self.value(input).shape) };
        self.layer("softmax", &[input], output, [], [])
    }

    pub fn argmax(&mut self, input: usize) -> usize {
        let [height, width, _] = self.value(input).shape;
        let output = ValueDescription { dtype: Dtype::Int32, scale: 1.0, zero_point: 0, ..value([height, width, 1]) };
        self.layer("argmax", &[input], output, [], [])
    }

    /// Rows of a table of this number of rows and channels, by the indices of a vector.
    pub fn embedding(&mut self, indices: usize, rows: u32, channels: u32) -> usize {
        let output = value([1, self.value(indices).shape[2], channels]);
        let table = Tensor::Int8((0..rows * channels).map(|_| self.random.i8(..)).collect());
        self.layer("embedding", &[indices], output, [("rows", rows.into())], [("table", table)])
    }

    pub fn prelu(&mut self, input: usize) -> usize {
        let shape = self.value(input).shape;
        let alpha = Tensor::Int8((0..shape[2]).map(|_| self.random.i8(..)).collect());
        let tensors = [("alpha", alpha), ("alpha_scale", Tensor::Float32(vec![0.01]))];
        self.layer("prelu", &[input], value(shape), [], tensors)
    }

    /// A softmax in which pixel i reads its channels up to i: a causal attention.
    pub fn masked_softmax(&mut self, input: usize) -> usize {
        let [height, rows, channels] = self.value(input).shape;
        let mask = (0..rows).flat_map(|row| (0..channels).map(move |channel| i8::from(channel <= row))).collect();
        let output = ValueDescription { scale: 1.0 / 256.0, zero_point: -128, ..value([height, rows, channels]) };
        let tensors = [("mask", Tensor::Int8(mask))];
        self.layer("masked_softmax", &[input], output, [("mask_rows", rows.into())], tensors)
    }

    pub fn log_softmax(&mut self, input: usize) -> usize {
        let output = ValueDescription { scale: 1.0 / 16.0, zero_point: 127, ..value(self.value(input).shape) };
        self.layer("log_softmax", &[input], output, [], [])
    }

    /// A matrix product; with `transpose_b` of the transposed second one.
    pub fn matmul(&mut self, a: usize, b: usize, transpose_b: bool, scale: f32) -> usize {
        let ([batch, rows, _], [_, width, channels]) = (self.value(a).shape, self.value(b).shape);
        let shape = [batch, rows, if transpose_b { width } else { channels }];
        let output = ValueDescription { scale, ..value(shape) };
        self.layer("matmul", &[a, b], output, [("transpose_b", transpose_b.into())], [])
    }

    /// Layer normalization, or RMS normalization without `subtract_mean`.
    pub fn layer_norm(&mut self, input: usize, subtract_mean: bool) -> usize {
        let output = value(self.value(input).shape);
        let channels = output.shape[2];
        let mut numbers = || Tensor::Float32((0..channels).map(|_| self.random.f32() * 4.0 - 2.0).collect());
        let tensors = [("weight", numbers()), ("bias", numbers()), ("epsilon", Tensor::Float32(vec![1e-5]))];
        self.layer("layer_norm", &[input], output, [("subtract_mean", subtract_mean.into())], tensors)
    }

    /// Bilinear interpolation to this height and width.
    pub fn resize_bilinear(&mut self, input: usize, [height, width]: [u32; 2]) -> usize {
        let before = self.value(input).shape;
        let samples = |input: u32, output: u32| {
            let step = (i64::from(input) << 20) / i64::from(output);
            [(step - (1 << 20)) / 2, step]
        };
        let ([top, down], [left, right]) = (samples(before[0], height), samples(before[1], width));
        let attributes = [
            ("output_height", height.into()),
            ("output_width", width.into()),
            ("step_height", down),
            ("step_width", right),
            ("start_height", top),
            ("start_width", left),
        ];
        self.layer("resize_bilinear", &[input], value([height, width, before[2]]), attributes, [])
    }

    /// An LSTM of `units`; returns the id of its hidden states, which that of its last cell state follows.
    pub fn lstm(&mut self, input: usize, units: u32) -> usize {
        let [_, steps, features] = self.value(input).shape;
        let mut weights =
            |length: u32| Tensor::Int8((0..4 * units * length).map(|_| self.random.i8(-127..=127)).collect());
        let tensors = [("weights", weights(features)), ("recurrent_weights", weights(units))];
        let scales = || Tensor::Float32(vec![0.001; 4]);
        let bias = Tensor::Int32((0..4 * units).map(|_| self.random.i32(-1000..1000)).collect());
        let rest = [("bias", bias), ("weight_scales", scales()), ("recurrent_weight_scales", scales())];
        let hidden = self.layer("lstm", &[input], value([1, steps, units]), [], tensors.into_iter().chain(rest));
        let cell =
            ValueDescription { dtype: Dtype::Int16, scale: 2f32.powi(-12), zero_point: 0, ..value([1, 1, units]) };
        self.model.layers.last_mut().expect("the layer is the last").outputs.push(cell);
        hidden
    }

    /// A GRU (three gates) or a recurrent layer (one gate) over the input's steps.
    pub fn recurrent(&mut self, operator: &'static str, input: usize, units: u32, gates: u32) -> usize {
        let [_, steps, features] = self.value(input).shape;
        let of_input = self.weights(gates * units, features);
        let of_state = self.weights(gates * units, units);
        let names = ["weight_ih", "bias_ih", "scales_ih", "weight_hh", "bias_hh", "scales_hh"];
        let tensors: Vec<_> =
            names.into_iter().zip(of_input.into_iter().chain(of_state).map(|(_, tensor)| tensor)).collect();
        let attributes = (operator == "rnn").then_some(("relu", 0));
        self.layer(operator, &[input], value([1, steps, units]), attributes, tensors)
    }

    /// Data movement to `shape` by tables of rows, columns and channels.
    pub fn gather(&mut self, input: usize, shape: [u32; 3], tables: [Vec<i32>; 3]) -> usize {
        self.part(input, shape, tables, [0, 0])
    }

    /// Data movement whose output is a part of the input: it has this first element and this pitch there.
    pub fn part(&mut self, input: usize, shape: [u32; 3], tables: [Vec<i32>; 3], [first, pitch]: [i64; 2]) -> usize {
        let lengths = tables.each_ref().map(|table| table.len() as i64);
        let names = ["rows", "columns", "channels"];
        let tensors: Vec<_> = names.into_iter().zip(tables.map(Tensor::Int32)).collect();
        let attributes = names.into_iter().zip(lengths).chain([("first", first), ("pitch", pitch)]);
        self.layer("move", &[input], value(shape), attributes, tensors)
    }

    pub fn concat(&mut self, inputs: &[usize], axis: usize) -> usize {
        let mut output = *self.value(inputs[0]);
        output.shape[axis] = inputs.iter().map(|&id| self.value(id).shape[axis]).sum();
        self.layer("concat", inputs, output, [("axis", axis as i64)], [])
    }

    pub fn output(&mut self, id: usize) {
        let name = format!("output {}", self.model.outputs.len());
        self.model.outputs.push(OutputDescription { name, id });
    }

    /// A head of random weights on the first output, to be trained by gradient descent.
    pub fn head(&mut self, classes: usize) {
        let head = self.sgd(classes);
        self.model.head = Some(HeadDescription::Sgd(head));
    }

    /// A description of [`Builder::head`].
    pub fn sgd(&mut self, classes: usize) -> SgdDescription {
        let output = self.model.outputs[0].id;
        let features = self.value(output).shape.iter().product::<u32>() as usize;
        SgdDescription {
            weights: (0..classes * features).map(|_| self.random.f32() - 0.5).collect(),
            biases: (0..classes).map(|_| self.random.f32() - 0.5).collect(),
            descent: descent(0.02, Loss::CrossEntropy),
            prior: -1.0,
        }
    }

    /// Makes all layers layers of int16, their biases int64, and their tables random ones.
    pub fn widen(&mut self) {
        let ModelDescription { inputs, layers, .. } = &mut self.model;
        let outputs = layers.iter_mut().flat_map(|layer| &mut layer.outputs);
        for value in inputs.iter_mut().map(|input| &mut input.value).chain(outputs) {
            (value.dtype, value.scale, value.zero_point) = (Dtype::Int16, SCALE / 256.0, 0);
        }
        for layer in layers {
            if layer.tensors.contains_key("table") {
                let table = (0..513).map(|_| self.random.i16(..)).collect();
                layer.tensors.insert("table".into(), Tensor::Int16(table));
            }
            let Some(Tensor::Int32(bias)) = layer.tensors.get("bias") else { continue };
            let bias = bias.iter().copied().map(i64::from).collect();
            layer.tensors.insert("bias".into(), Tensor::Int64(bias));
        }
    }

    /// The model's image.
    pub fn image(&self) -> Aligned {
        self.image_with(&self.kernels)
    }

    /// The model's image with other kernels than the crate's.
    pub fn image_with(&self, kernels: &[Kernel]) -> Aligned {
        Aligned::new(&write_with(&self.model, kernels).expect("the test's model is a valid one"))
    }

    fn weights(&mut self, channels: u32, per_channel: u32) -> [(&'static str, Tensor); 3] {
        let weights = (0..channels * per_channel).map(|_| self.random.i8(-127..=127)).collect();
        let bias = (0..channels).map(|_| self.random.i32(-2000..=2000)).collect();
        let scales = (0..channels).map(|_| self.weight_scale * (0.5 + self.random.f32())).collect();
        [("weights", Tensor::Int8(weights)), ("bias", Tensor::Int32(bias)), ("weight_scales", Tensor::Float32(scales))]
    }
}

/// An int8 value of the usual scale and zero point.
pub fn value(shape: [u32; 3]) -> ValueDescription {
    ValueDescription { dtype: Dtype::Int8, shape, scale: SCALE, zero_point: ZERO_POINT, state: false }
}

/// Gradient descent without a schedule or class weights.
pub fn descent(learning_rate: f64, loss: Loss) -> Descent {
    Descent {
        learning_rate: Some(learning_rate),
        loss,
        halve_every: 0,
        class_weights: vec![],
        balance: false,
        frozen: vec![],
        guard: 0,
        half_life: 0,
    }
}

/// A head of two layers, with four hidden features and a ReLU between them; its weights repeat.
pub fn layers_head(features: usize, outputs: usize, descent: Descent) -> HeadDescription {
    wide_layers_head(features, 4, outputs, descent)
}

/// [`layers_head`] with so many outputs of the first layer.
pub fn wide_layers_head(features: usize, hidden: usize, outputs: usize, descent: Descent) -> HeadDescription {
    let layer = |inputs: usize, outputs: usize, clamp_low| TrainedLayer {
        clamp_low,
        range: (-0.5, 1.0),
        ..TrainedLayer::fully_connected(
            (0..inputs * outputs).map(|index| (index % 7) as f32 / 7.0 - 0.4).collect(),
            vec![0.1; outputs],
        )
    };
    let layers = vec![layer(features, hidden, Some(0.0)), layer(hidden, outputs, None)];
    HeadDescription::Layers(LayersDescription { layers, descent })
}
