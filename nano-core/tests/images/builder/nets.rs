//! The test models.

use nano_core::ops;

use super::{Builder, SCALE, Window};

/// All test models.
pub fn nets() -> [Builder; 12] {
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
        pairs_net(),
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

/// A PReLU, the indices of its largest channels, and an embedding of indices.
pub fn indices_net() -> Builder {
    let mut net = Builder::new(9);
    let image = net.input([2, 3, 6]);
    let words = net.indices(4);
    let scores = net.prelu(image);
    let indices = net.argmax(scores);
    let rows = net.embedding(words, 5, 3);
    net.output(scores);
    net.output(indices);
    net.output(rows);
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

/// Kernels and operators that the other models lack: an addition in the literal form, a state, data movement, a
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

/// Kernels with two products per multiplication: convolutions of pixels in pairs, one with a residual addition, and one of one pixel; a fully
/// connected layer.
pub fn pairs_net() -> Builder {
    let mut net = Builder::new(12);
    net.kernels =
        vec![ops::CONV2D_PAIRS, ops::CONV2D_ADD_PAIRS, ops::CONV2D_ONE_PIXEL, ops::FULLY_CONNECTED_PAIRS, ops::ADD];
    let padded = Window { padding: [1; 4], ..Window::new([3, 3]) };
    let image = net.input([7, 6, 7]);
    let first = net.conv2d(image, 7, 1, padded);
    let second = net.conv2d(first, 7, 1, padded);
    let sum = net.add(image, second, SCALE);
    let mixed = net.conv2d(sum, 5, 1, Window::new([1, 1]));
    let strided = net.conv2d(mixed, 5, 1, Window { stride: [2, 2], ..Window::new([5, 5]) });
    // Some of the taps lie in the padding.
    let pixel = net.conv2d(strided, 9, 1, Window { padding: [1, 0, 2, 0], ..Window::new([3, 3]) });
    let logits = net.fully_connected(pixel, 11);
    net.output(logits);
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
