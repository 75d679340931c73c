//! Small models with random weights, written by the crate's own writer, and functions that damage their images.
#![allow(dead_code, reason = "every test program that includes this file uses its own part of it")]

use nano_core::image::{
    Dtype, HeadDescription, InputDescription, LayerDescription, LayersDescription, ModelDescription, OutputDescription,
    SgdDescription, Tensor, TrainedLayer, ValueDescription, write_with,
};
use nano_core::train::{Descent, Loss};
use nano_core::{Kernel, ops};
use zerocopy::IntoBytes;

/// Scale of every value unless said otherwise.
pub const SCALE: f32 = 0.05;
/// Zero point of every value unless said otherwise.
pub const ZERO_POINT: i32 = -3;

/// A model under construction.
pub struct Builder {
    pub model: ModelDescription,
    /// Scale of the weights of the layers that are added next.
    pub weight_scale: f32,
    random: fastrand::Rng,
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
        };
        Builder { model, weight_scale: 0.004, random: fastrand::Rng::with_seed(seed) }
    }

    /// Adds a graph input; all of them come before the first layer.
    pub fn input(&mut self, shape: [u32; 3]) -> usize {
        assert!(self.model.layers.is_empty(), "the ids of inputs are below those of the layers' outputs");
        let index = self.model.inputs.len();
        let name = format!("input {index}");
        self.model.inputs.push(InputDescription { name, value: value(shape), channels: vec![] });
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
        self.image_with(ops::ALL)
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
    Descent { learning_rate, loss, halve_every: 0, class_weights: vec![], frozen: vec![] }
}

/// A head of two layers, with four hidden features and a ReLU between them; its weights repeat.
pub fn layers_head(features: usize, outputs: usize, descent: Descent) -> HeadDescription {
    let layer = |inputs: usize, outputs: usize, clamp_low| TrainedLayer {
        positions: 1,
        weights: (0..inputs * outputs).map(|index| (index % 7) as f32 / 7.0 - 0.4).collect(),
        biases: vec![0.1; outputs],
        clamp_low,
        clamp_high: None,
        range: (-0.5, 1.0),
    };
    let layers = vec![layer(features, 4, Some(0.0)), layer(4, outputs, None)];
    HeadDescription::Layers(LayersDescription { layers, descent })
}

/// All test models.
pub fn nets() -> [Builder; 11] {
    [
        conv_net(),
        head_net(),
        two_by_two(),
        variants_net(),
        residual_net(),
        attention_net(),
        lstm_net(),
        gru_net(),
        wide_net(),
        wide_values_net(),
        indices_net(),
    ]
}

/// Convolutions with padding, depthwise convolution, residual addition, pools, fully connected layer, softmax.
pub fn conv_net() -> Builder {
    let mut net = Builder::new(1);
    let padded = Window { padding: [1; 4], ..Window::new([3, 3]) };
    let image = net.input([7, 6, 3]);
    let start = net.conv2d(image, 5, 1, padded);
    let start = net.max_pool2d(start, Window { stride: [2, 2], padding: [1, 0, 0, 1], ..Window::new([2, 2]) });
    let inner = net.depthwise_conv2d(start, padded);
    let inner = net.conv2d(inner, 5, 1, Window::new([1, 1]));
    let sum = net.add(start, inner, SCALE);
    let pooled = net.average_pool2d(sum, Window { padding: [0, 1, 1, 0], ..Window::new([2, 2]) }, 1);
    let [height, width, _] = net.value(pooled).shape;
    let pooled = net.average_pool2d(pooled, Window::new([height, width]), 0);
    // At this scale the multipliers exceed 1: the literal form of requantization.
    net.weight_scale = 1.5;
    let logits = net.fully_connected(pooled, 11);
    let probabilities = net.softmax(logits);
    net.output(probabilities);
    net
}

/// Attention over six pixels, whose normalized channels are queries, keys and values in one; the logarithm of its softmax.
pub fn attention_net() -> Builder {
    let mut net = Builder::new(6);
    let series = net.input([1, 6, 5]);
    let keys = net.layer_norm(series, true);
    let queries = net.layer_norm(series, false);
    let scores = net.matmul(queries, keys, true, 0.2);
    let weights = net.softmax(scores);
    let context = net.matmul(weights, keys, false, SCALE);
    let causal = net.masked_softmax(scores);
    net.output(causal);
    let logarithms = net.log_softmax(context);
    net.output(logarithms);
    net
}

/// Two LSTMs in a row, the last cells of the second being an output, too.
pub fn lstm_net() -> Builder {
    let mut net = Builder::new(7);
    let series = net.input([1, 5, 3]);
    let first = net.lstm(series, 6);
    let second = net.lstm(first, 4);
    net.output(second);
    net.output(second + 1);
    net
}

/// A GRU and a recurrent layer in a row.
pub fn gru_net() -> Builder {
    let mut net = Builder::new(8);
    let series = net.input([1, 5, 3]);
    let first = net.recurrent("gru", series, 6, 3);
    let second = net.recurrent("rnn", first, 5, 1);
    net.output(second);
    net
}

/// Layers of int16 with weights: convolutions of two groups and of one pixel, depthwise ones along lines and by window, and a fully connected one in
/// the literal form of requantization.
pub fn wide_net() -> Builder {
    let mut net = Builder::new(9);
    let padded = Window { padding: [1; 4], ..Window::new([3, 3]) };
    let image = net.input([7, 6, 4]);
    let start = net.conv2d(image, 6, 2, padded);
    let start = net.conv2d(start, 5, 1, Window::new([1, 1]));
    let inner = net.depthwise_conv2d(start, padded);
    let inner = net.depthwise_conv2d(inner, Window { padding: [0, 0, 2, 1], ..Window::new([2, 4]) });
    // At this scale the multipliers exceed 1/4.
    net.weight_scale = 1.5;
    let logits = net.fully_connected(inner, 7);
    net.output(logits);
    net.widen();
    net
}

/// Layers of int16 without weights: pools, a product in each form of requantization, a sum, a difference and a table.
pub fn wide_values_net() -> Builder {
    let mut net = Builder::new(11);
    let image = net.input([5, 6, 3]);
    let largest = net.max_pool2d(image, Window { padding: [1, 0, 1, 0], ..Window::new([2, 2]) });
    let mean = net.average_pool2d(largest, Window::new([5, 6]), 1);
    let sum = net.pairwise("add", largest, mean, SCALE);
    let product = net.pairwise("mul", sum, image, SCALE);
    let difference = net.pairwise("sub", product, largest, SCALE);
    let table = net.table(difference);
    let square = net.pairwise("mul", table, table, SCALE);
    net.output(square);
    net.widen();
    // A multiplier above 1: the literal form.
    net.value(square).scale = SCALE * SCALE / (1 << 18) as f32;
    net
}

/// A PReLU, and the indices of its largest channels.
pub fn indices_net() -> Builder {
    let mut net = Builder::new(9);
    let image = net.input([2, 3, 6]);
    let scores = net.prelu(image);
    let indices = net.argmax(scores);
    net.output(scores);
    net.output(indices);
    net
}

/// A 1-D network that ends in features, and a head of 3 classes.
pub fn head_net() -> Builder {
    let mut net = Builder::new(2);
    let series = net.input([1, 16, 2]);
    let padding = [0, 0, 2, 1];
    let features = net.conv2d(series, 6, 2, Window { stride: [1, 2], padding, ..Window::new([1, 5]) });
    let features = net.average_pool2d(features, Window::new([1, 8]), 0);
    net.output(features);
    net.head(3);
    net
}

/// Two inputs, two outputs, a value added to itself, and every operator that `conv_net` lacks.
pub fn two_by_two() -> Builder {
    let mut net = Builder::new(3);
    let (left, right) = (net.input([5, 4, 4]), net.input([5, 4, 4]));
    let dilated = Window { dilation: [2, 1], padding: [2, 2, 0, 0], ..Window::new([3, 1]) };
    let grouped = net.conv2d(left, 4, 2, dilated);
    let depthwise = net.depthwise_conv2d(right, dilated);
    let sum = net.add(grouped, depthwise, 0.11);
    let twice = net.add(sum, sum, 0.22);
    let table = net.table(twice);
    let requantized = net.requantize(sum, 0.07, 12);
    net.output(requantized);
    net.output(table);
    net
}

/// Kernels and operators that the other models lack: a fully connected layer in pairs, an addition in the literal form, a state, data movement, a
/// concatenation, an interpolation.
pub fn variants_net() -> Builder {
    let mut net = Builder::new(4);
    let input = net.input([1, 2, 8]);
    let hidden = net.fully_connected(input, 32);
    // To an output scale far above the inputs' the shift is too large for one pass.
    let sum = net.add(hidden, hidden, 400.0 * SCALE);
    net.history(hidden, 2);
    // Width and channels are transposed, between rows of zeros, and half of the channels is flipped.
    let flipped = (0..8).map(|k| if k < 4 { k } else { 11 - k }).collect();
    let moved = net.gather(input, [3, 8, 2], [vec![-1, 0, -1], flipped, vec![0, 8]]);
    let both = net.concat(&[hidden, hidden], 2);
    let larger = net.conv_transpose2d(input, 3, [2, 3]);
    let product = net.pairwise("mul", hidden, sum, 400.0 * SCALE);
    let difference = net.pairwise("sub", hidden, sum, SCALE);
    let resized = net.resize_bilinear(larger, [7, 3]);
    net.output(hidden);
    net.output(sum);
    net.output(moved);
    net.output(both);
    net.output(larger);
    net.output(product);
    net.output(difference);
    net.output(resized);
    net
}

/// Two residual blocks, in each of which the writer fuses a convolution and the addition, in both forms of requantization.
pub fn residual_net() -> Builder {
    let mut net = Builder::new(5);
    let input = net.input([6, 6, 4]);
    let padded = Window { padding: [1; 4], ..Window::new([3, 3]) };
    let first = net.conv2d(input, 4, 1, padded);
    let inner = net.conv2d(first, 4, 2, padded);
    let sum = net.add(input, inner, SCALE);
    net.weight_scale = 1.5;
    let first = net.conv2d(sum, 4, 1, padded);
    let inner = net.conv2d(first, 4, 1, Window::new([1, 1]));
    let sum = net.add(inner, sum, 400.0 * SCALE);
    net.output(sum);
    net
}

/// Bytes at an address that is a multiple of 4, as images are read.
#[derive(Clone)]
pub struct Aligned {
    words: Vec<u32>,
    length: usize,
}

impl Aligned {
    pub fn new(bytes: &[u8]) -> Self {
        let mut aligned = Aligned { words: vec![0; bytes.len().div_ceil(4)], length: bytes.len() };
        aligned.bytes_mut().copy_from_slice(bytes);
        aligned
    }

    pub fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.length]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.words.as_mut_bytes()[..self.length]
    }

    pub fn word(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes()[offset..offset + 4].try_into().unwrap())
    }

    /// Changes a word and corrects the checksum.
    pub fn patch(&mut self, offset: usize, word: u32) {
        self.bytes_mut()[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
        self.reseal();
    }

    /// Corrects the checksum.
    pub fn reseal(&mut self) {
        let length = self.word(place::LENGTH) as usize;
        let end = if (place::CHECKED_FROM..=self.length).contains(&length) { length } else { self.length };
        let checksum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&self.bytes()[place::CHECKED_FROM..end]);
        self.bytes_mut()[place::CHECKSUM..place::CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Where the header's words lie that the tests damage: the layout of format version 4, stated independently of the crate.
pub mod place {
    pub const VERSION: usize = 4;
    pub const CHECKSUM: usize = 8;
    pub const CHECKED_FROM: usize = 12;
    pub const LENGTH: usize = 12;
    pub const ARENA_LENGTH: usize = 16;
    /// Offset of a section; its length follows.
    pub const VALUES: usize = 20;
    pub const NODES: usize = 28;
    pub const INPUTS: usize = 36;
    pub const OUTPUTS: usize = 44;
    pub const HEAD: usize = 52;
    pub const METADATA: usize = 60;
    pub const LABEL_ORDER: usize = 68;
    pub const CONSTANTS: usize = 76;
    pub const HEADER_LENGTH: usize = 84;
    /// Bytes of a value record, and where in it lie the pitch, the scale, the zero point, the last use, the offset in the arena and the bytes there, the
    /// dtype (u8) and the place (u8).
    pub const VALUE_LENGTH: usize = 40;
    pub const VALUE_PITCH: usize = 12;
    pub const VALUE_SCALE: usize = 16;
    pub const VALUE_ZERO_POINT: usize = 20;
    pub const VALUE_LAST_USE: usize = 24;
    pub const VALUE_OFFSET: usize = 28;
    pub const VALUE_BYTES: usize = 32;
    pub const VALUE_DTYPE: usize = 36;
    /// Bytes of the record of where an input's channel scales lie.
    pub const INPUT_LENGTH: usize = 8;
    /// Bytes of a node record before its input ids, and where in it lie the kernel (u16), the form (u8), the counts of inputs, outputs and attributes
    /// (u8) and of constants (u16), and the place of its scratch memory.
    pub const NODE_HEADER: usize = 16;
    pub const NODE_FORM: usize = 2;
    pub const NODE_INPUTS: usize = 3;
    pub const NODE_OUTPUTS: usize = 4;
    pub const NODE_ATTRIBUTES: usize = 5;
    pub const NODE_CONSTANTS: usize = 6;
    pub const NODE_SCRATCH: usize = 8;
}
