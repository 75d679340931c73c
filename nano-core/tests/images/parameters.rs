//! Nodes whose attributes, constants or memory break a rule of their operator, by a change of one word each.

use nano_core::image::{Dtype, Image, Tensor, WriteError, write_with};
use nano_core::{CheckedImage, Error, Model, ops};

use crate::builder::{
    Aligned, Builder, Window, conv_net, lstm_net, nets, place, two_by_two, variants_net, wide_net, wide_values_net,
};

/// Where the parts of a node's record lie in the image.
struct Record {
    start: usize,
    attributes: usize,
    /// Offset (u32) and length (u32) of each constant.
    constants: usize,
}

const SCRATCH_LENGTH: usize = place::NODE_SCRATCH + 4;

fn record(image: &Aligned, node: usize) -> Record {
    let mut start = image.word(place::NODES) as usize;
    for index in 0.. {
        let [inputs, attribute_count] =
            [place::NODE_INPUTS, place::NODE_ATTRIBUTES].map(|byte| usize::from(image.bytes()[start + byte]));
        let attributes = start + place::NODE_HEADER + 4 * inputs;
        let constants = attributes + 4 * attribute_count;
        if index == node {
            return Record { start, attributes, constants };
        }
        start = constants + 8 * usize::from(image.bytes()[start + place::NODE_CONSTANTS]);
    }
    unreachable!("the loop ends at the node")
}

/// The operators of an image's nodes.
fn operators(image: &Aligned) -> Vec<&'static str> {
    let nodes = Image::new(image.bytes()).unwrap().nodes();
    nodes.map(|node| node.kernel(ops::ALL).unwrap().operator.name).collect()
}

/// Index of the first node of `operator` in the image.
fn find(image: &Aligned, operator: &str) -> usize {
    operators(image).iter().position(|&name| name == operator).unwrap()
}

fn model_with(operator: &str) -> Builder {
    let has = |net: &Builder| operators(&net.image()).contains(&operator);
    nets().into_iter().find(has).unwrap()
}

fn refused(image: &Aligned) -> Error {
    Model::new(image.bytes(), &mut vec![0; 1 << 16], ops::ALL).err().expect("the node breaks a rule")
}

/// The rule that is broken when word `index` of constant `constant` of the first `operator` becomes `word`.
fn rule_of_constant(operator: &str, constant: usize, index: usize, word: i32) -> &'static str {
    rule_in(&model_with(operator), operator, constant, index, word)
}

/// The same in another model.
fn rule_in(net: &Builder, operator: &str, constant: usize, index: usize, word: i32) -> &'static str {
    let mut image = net.image();
    let offset = image.word(record(&image, find(&image, operator)).constants + 8 * constant);
    image.patch((image.word(place::CONSTANTS) + offset) as usize + 4 * index, word as u32);
    rule(operator, refused(&image))
}

fn rule(expected: &str, error: Error) -> &'static str {
    match error {
        Error::Layer { operator, rule, .. } if operator == expected => rule,
        other => panic!("{expected}: {other}"),
    }
}

#[test]
fn every_operator_refuses_other_forms_and_other_scratch_memory() {
    for net in nets() {
        let mut image = net.image();
        image.patch(place::ARENA_LENGTH, 1 << 14);
        for (node, name) in operators(&image).into_iter().enumerate() {
            let start = record(&image, node).start;
            let mut other = image.clone();
            other.bytes_mut()[start + place::NODE_FORM] = 7;
            other.reseal();
            match refused(&other) {
                Error::UnknownForm { operator, form: 7 } => assert_eq!(operator, name),
                error => panic!("{name}: {error}"),
            }
            let mut other = image.clone();
            let length = other.word(start + SCRATCH_LENGTH);
            other.patch(start + SCRATCH_LENGTH, length + 4);
            let rule = rule(name, refused(&other));
            assert!(rule.contains("scratch"), "{name}: {rule}");
        }
    }
}

#[test]
fn every_attribute_has_its_range() {
    // For each attribute a value that is wrong in every operator, and a word of the rule it breaks.
    let wrong = |name: &str| match name {
        "kernel_height" | "kernel_width" => (0, "kernel"),
        "stride_height" | "stride_width" => (0, "stride"),
        "dilation_height" | "dilation_width" => (40_000, "dilation"),
        "padding_top" | "padding_bottom" | "padding_left" | "padding_right" => (-1, "padding"),
        "clamp_min" | "sum_clamp_min" => (-129, "clamp_min"),
        "clamp_max" | "sum_clamp_max" => (-200, "clamp_max"),
        "convolution_zero_point" => (128, "zero point"),
        "groups" => (0, "groups"),
        "axis" => (3, "axis"),
        "count_include_pad" => (2, "count_include_pad"),
        "transpose_b" => (2, "transpose_b"),
        "subtract_mean" => (-1, "subtract_mean"),
        "mask_rows" => (0, "mask_rows"),
        "relu" => (2, "relu"),
        "output_height" | "output_width" => (0, "output_"),
        "step_height" | "step_width" => (-1, "step_"),
        "start_height" | "start_width" => (-(1 << 21), "start_"),
        "first" => (-1, "first"),
        "pitch" => (-1, "pitch"),
        "rows" => (0, "rows"),
        "columns" | "channels" => (0, "rows times columns times channels"),
        other => panic!("no wrong value is known for {other}: add one"),
    };
    let images = nets().map(|net| net.image());
    for operator in ops::ALL.iter().map(|kernel| kernel.operator) {
        let image = images.iter().find(|image| operators(image).contains(&operator.name)).unwrap();
        let attributes = record(image, find(image, operator.name)).attributes;
        for (index, name) in operator.attributes.iter().enumerate() {
            let (value, text) = wrong(name);
            let mut image = image.clone();
            image.patch(attributes + 4 * index, value as u32);
            let rule = rule(operator.name, refused(&image));
            assert!(rule.contains(text), "{} {name}: {rule}", operator.name);
        }
    }
}

#[test]
fn a_window_larger_than_the_padded_input_is_refused() {
    for operator in ["conv2d", "conv2d_add", "depthwise_conv2d", "max_pool2d", "average_pool2d"] {
        let mut image = model_with(operator).image();
        let index = find(&image, operator);
        let node = Image::new(image.bytes()).unwrap().nodes().nth(index).unwrap();
        let [height, ..] = node.input(0).shape;
        let named = ops::CONV2D.operator.attributes.iter().zip(node.attributes());
        let padding: i32 = named
            .filter(|(name, _)| ["padding_top", "padding_bottom"].contains(name))
            .map(|(_, &padding)| padding)
            .sum();
        let attributes = record(&image, index).attributes;
        image.patch(attributes, height + padding as u32 + 1);
        let rule = rule(operator, refused(&image));
        assert_eq!(rule, "the window is larger than the padded input, by", "{operator}");
    }
}

#[test]
fn groups_that_do_not_divide_the_channels_are_refused() {
    let net = conv_net();
    let mut image = net.image();
    let groups = ops::CONV2D.operator.attributes.iter().position(|&name| name == "groups").unwrap();
    let attributes = record(&image, 0).attributes;
    image.patch(attributes + 4 * groups, 3);
    assert_eq!(rule("conv2d", refused(&image)), "groups does not divide the output channels");
    image.patch(attributes + 4 * groups, 5);
    assert_eq!(rule("conv2d", refused(&image)), "groups does not divide the input channels");
}

#[test]
fn multipliers_have_their_range() {
    // A multiplier is a mantissa and a shift.
    let literal = variants_net();
    for (net, operator, last) in [(&literal, "add", 2), (&two_by_two(), "requantize", 0)] {
        for multiplier in 0..=last {
            let rule = |word: usize, value| rule_in(net, operator, 0, 2 * multiplier + word, value);
            assert_eq!(rule(0, -1), "a multiplier's mantissa is negative");
            for shift in [-32, 31, i32::MIN, i32::MAX] {
                assert_eq!(rule(1, shift), "a multiplier's shift is not -31 to 30");
            }
        }
    }
    // Raised by 20 bits, the inputs of an addition have no room for more.
    assert_eq!(rule_in(&literal, "add", 0, 1, 1), "the first input's multiplier exceeds 1, shift");
    assert_eq!(rule_in(&literal, "add", 0, 3, 1), "the second input's multiplier exceeds 1, shift");
    // In the one-pass form: the bits to raise the input by, a multiplier, an addend and a shift.
    for scale in 0..3 {
        let rule = |word: usize, value| rule_of_constant("add", 0, 4 * scale + word, value);
        assert_eq!(rule(0, 22), "a multiplier raises by more than 21 bits");
        for shift in [1, 32, -1, i32::MIN] {
            assert_eq!(rule(3, shift), "the requantization shift is not 2 to 31");
        }
        for addend in [i32::MIN, i32::MAX] {
            assert_eq!(rule(2, addend), "twice the sum's bound + |addend| + 2 reaches 2^31");
        }
    }
}

#[test]
fn constants_of_int16_have_their_range() {
    let net = wide_values_net();
    // The first product's: a bias, a multiplier, an addend and a shift.
    let product = |word: usize, value| rule_in(&net, "mul", 0, word, value);
    for shift in [0, 32, -1, i32::MIN] {
        assert_eq!(product(3, shift), "the requantization shift is not 1 to 31");
    }
    for addend in [-1, 1 << 30, i32::MIN, i32::MAX] {
        assert_eq!(product(2, addend), "the largest product + addend reaches 2^31");
    }
    // A sum has room for its largest numbers, but not for one bit more.
    for scale in 0..2 {
        assert_eq!(rule_in(&net, "add", 0, 4 * scale, 16), "twice the sum's bound + |addend| + 2 reaches 2^31");
    }
    let mut image = net.image();
    let constant = record(&image, find(&image, "table")).constants;
    let length = image.word(constant + 4);
    image.patch(constant + 4, length - 2);
    assert_eq!(rule("table", refused(&image)), "the table of int16 has not 513 entries");
}

#[test]
fn a_window_has_room_for_the_sum_of_its_elements() {
    for (wide, height, widths) in [(true, 255, [256, 258]), (false, 4000, [4177, 4180])] {
        let [fits, refused] = widths.map(|width| {
            let mut net = Builder::new(12);
            let image = net.input([height, width, 3]);
            let mean = net.average_pool2d(image, Window::new([height, width]), 0);
            net.output(mean);
            if wide {
                net.widen();
            }
            CheckedImage::new(net.image().bytes(), ops::ALL).map(drop).map_err(|error| error.to_string())
        });
        fits.unwrap();
        let refused = refused.unwrap_err();
        assert!(refused.contains("the largest sum under the window, rounded, reaches 2^31"), "{refused}");
    }
}

#[test]
fn weights_in_pairs_of_channels_have_their_range() {
    // Of an odd number of inputs, the first row has a lane without an input; of an odd number of outputs, the last pair has one without a channel.
    let mut net = Builder::new(3);
    net.kernels = vec![ops::FULLY_CONNECTED_PAIRS];
    let input = net.input([1, 1, 5]);
    let output = net.fully_connected(input, 3);
    net.output(output);
    let rule = |word: usize, value: u32| rule_in(&net, "fully_connected", 0, word, value as i32);
    // The word before the rows, 3 rows of 2 pairs, the word after them: bytes of inputs i and j, each of channels a and b, plus 128.
    assert_eq!(rule(1, 0x8180_8181), "a weight that belongs to no channel or no input is not 0");
    assert_eq!(rule(2, 0x8080_8180 + 0x0100_0000), "a weight that belongs to no channel or no input is not 0");
    assert_eq!(rule(4, 0x8080_0080), "a weight is not -127 to 127, in channel");
    assert_eq!(rule(5, 0x0001_0203), "a weight is not -127 to 127, in channel");
    // A channel is a bias with a shift below it, and a multiplier.
    for shift in [0, 22, 31] {
        assert_eq!(rule_in(&net, "fully_connected", 1, 2, 32 + shift), "the requantization shift is not 1 to 21");
    }
}

#[test]
fn softmax_parameters_have_their_range() {
    for (word, value, expected) in [
        (0, (1 << 30) - 1, "the multiplier's mantissa is below 2^30"),
        (0, -1, "the multiplier's mantissa is below 2^30"),
        (1, -1, "the multiplier's shift is not 0 to 31"),
        (1, 32, "the multiplier's shift is not 0 to 31"),
        // The smallest difference was made for a smaller shift.
        (1, 31, "the smallest difference overflows 32 bits"),
        (2, 1, "the smallest difference is positive"),
    ] {
        assert_eq!(rule_of_constant("softmax", 0, word, value), expected, "word {word} is {value}");
        assert_eq!(rule_of_constant("log_softmax", 0, word, value), expected, "word {word} is {value}");
    }
    for (word, value, expected) in [
        (3, -1, "the reverse multiplier's mantissa is negative"),
        (4, 2, "the reverse multiplier's shift is not -31 to 1"),
        (4, -32, "the reverse multiplier's shift is not -31 to 1"),
    ] {
        assert_eq!(rule_of_constant("log_softmax", 0, word, value), expected, "word {word} is {value}");
    }
}

#[test]
fn constants_of_normalizations_have_their_range() {
    for (constant, word, value, expected) in [
        (0, 1, 1 << 29, "epsilon reaches 2^61"),
        (1, 0, i32::MIN, "a multiplier is -2^31"),
        (1, 4, 1 << 30, "an addend reaches 2^30"),
        (1, 4, i32::MIN, "an addend reaches 2^30"),
        (1, 14, 0, "a channel's shift is not 1 to 20"),
        (1, 14, 21, "a channel's shift is not 1 to 20"),
    ] {
        assert_eq!(rule_of_constant("layer_norm", constant, word, value), expected, "word {word} is {value}");
    }
}

#[test]
fn constants_of_an_lstm_have_their_range() {
    for (constant, word, value, expected) in [
        (0, 0, -1, "a multiplier's mantissa is negative"),
        (0, 1, 31, "a multiplier's shift is not -31 to 30"),
        (1, 3, 32, "the requantization shift is not 2 to 31"),
        (1, 30, i32::MAX, "twice the accumulator's bound + |addend| + 2 reaches 2^31"),
        // Four weights of -128, and a bias beyond every sum.
        (2, 0, 0x8080_8080u32 as i32, "a weight is not -127 to 127, in channel"),
        (3, 0, i32::MAX, "twice the accumulator's bound + |addend| + 2 reaches 2^31"),
        (3, 7, i32::MIN, "twice the accumulator's bound + |addend| + 2 reaches 2^31"),
    ] {
        assert_eq!(rule_of_constant("lstm", constant, word, value), expected, "word {word} is {value}");
    }
}

#[test]
fn the_scale_of_a_cell_is_a_power_of_two() {
    for scale in [3.0 / 4096.0, 2f32.powi(-44), 8.0] {
        let mut net = lstm_net();
        net.model.layers[0].outputs[1].scale = scale;
        let image = write_with(&net.model, ops::ALL);
        let rule = "the cell's scale is not a power of two from 2^-43 to 2^2";
        assert!(image.unwrap_err().to_string().contains(rule), "{scale}");
    }
}

#[test]
fn the_accumulator_of_a_matrix_product_has_its_bound() {
    // The channel of the model has the form of one pass: 2 * 5 * 130 * 130 + |addend| + 2 stays below 2^31.
    assert!(rule_of_constant("matmul", 0, 2, i32::MAX).contains("|addend|"));
    assert!(rule_of_constant("matmul", 0, 3, 32).contains("requantization shift"));
    let mut net = Builder::new(0);
    let series = net.input([1, 1, 1 << 17]);
    let product = net.matmul(series, series, true, 0.5);
    net.output(product);
    match write_with(&net.model, ops::ALL) {
        Err(WriteError::Refused { operator, rule, value }) => {
            assert_eq!((operator.as_str(), value), ("matmul", f64::from(1 << 17) * 130.0 * 130.0));
            assert!(rule.contains("must stay below 2^31"), "{rule}");
        }
        other => panic!("{:?}", other.map(|image| image.len())),
    }
}

#[test]
fn channels_of_weighted_layers_have_their_range() {
    // A channel is a bias, a multiplier, an addend and a shift.
    for operator in ["conv2d", "depthwise_conv2d", "fully_connected"] {
        assert_eq!(rule_of_constant(operator, 0, 0, 0x80), "a weight is not -127 to 127, in channel", "{operator}");
        for bias in [i32::MIN, i32::MAX] {
            assert!(rule_of_constant(operator, 1, 0, bias).contains("accumulator's bound"), "{operator}");
        }
        for shift in [32, -32, i32::MIN, i32::MAX] {
            assert!(rule_of_constant(operator, 1, 3, shift).contains("requantization shift"), "{operator}");
        }
    }
    // Of a convolution with an addition, the first constant is the addition's.
    assert_eq!(rule_of_constant("conv2d_add", 1, 0, 0x80), "a weight is not -127 to 127, in channel");
    assert!(rule_of_constant("conv2d_add", 2, 0, i32::MAX).contains("accumulator's bound"));
    assert!(rule_of_constant("conv2d_add", 2, 3, 32).contains("requantization shift"));
    assert_eq!(rule_of_constant("conv2d_add", 0, 0, 22), "a multiplier raises by more than 21 bits");
    // The fully connected layer of the model has the literal form, the convolutions have the other.
    assert_eq!(rule_of_constant("fully_connected", 1, 1, -1), "the requantization multiplier is negative");
    assert_eq!(rule_of_constant("fully_connected", 1, 2, 128), "the output's zero point is not int8");
    assert!(rule_of_constant("conv2d", 1, 2, i32::MAX).contains("|addend|"));
    assert!(rule_of_constant("conv2d", 1, 2, i32::MIN).contains("|addend|"));
}

#[test]
fn channels_of_int16_layers_have_their_range() {
    // A channel is a bias of two words, a multiplier and a shift.
    let net = wide_net();
    for operator in ["conv2d", "depthwise_conv2d", "fully_connected"] {
        let rule = |constant: usize, word: usize, value| rule_in(&net, operator, constant, word, value);
        assert_eq!(rule(0, 0, 0x80), "a weight is not -127 to 127, in channel", "{operator}");
        for bias in [i32::MIN, i32::MAX] {
            assert!(rule(1, 1, bias).contains("accumulator's bound reaches"), "{operator}");
        }
        assert_eq!(rule(1, 2, -1), "the requantization multiplier is negative", "{operator}");
        for shift in [-1, 47, i32::MIN, i32::MAX] {
            assert!(rule(1, 3, shift).contains("requantization shift is not"), "{operator}");
        }
    }
    // The fully connected layer has the literal form, the others the one of one pass with sums in 32 bits.
    let rule = |operator, word: usize, value| rule_in(&net, operator, 1, word, value);
    assert_eq!(rule("fully_connected", 2, 1 << 15), "the requantization multiplier reaches 2^15");
    assert_eq!(rule("fully_connected", 3, 7), "the requantization shift is not 8 to 46");
    assert_eq!(rule("fully_connected", 1, 1 << 14), "the accumulator's bound reaches 2^46");
    assert_eq!(rule("conv2d", 3, 31), "the requantization shift is not 0 to 30");
    assert_eq!(rule("conv2d", 0, i32::MAX), "the accumulator's bound reaches 2^31");
    assert_eq!(rule("conv2d", 1, 1), "the accumulator's bound reaches 2^31");
}

#[test]
fn scratch_memory_of_int16_is_aligned() {
    let mut image = wide_net().image();
    image.patch(place::ARENA_LENGTH, 1 << 14);
    let scratch = record(&image, find(&image, "conv2d")).start + place::NODE_SCRATCH;
    // After all values, at an odd offset.
    image.patch(scratch, (1 << 13) + 1);
    assert_eq!(rule("conv2d", refused(&image)), "the scratch memory is not aligned to its elements, offset");
}

#[test]
fn the_writer_refuses_accumulators_of_46_bits_and_multipliers_of_128() {
    let refusal = |change: &dyn Fn(&mut Builder)| {
        let mut net = wide_net();
        change(&mut net);
        write_with(&net.model, ops::ALL).unwrap_err().to_string()
    };
    let bias = |net: &mut Builder, bias: i64| {
        net.model.layers[4].tensors.insert("bias".into(), Tensor::Int64(vec![0, 0, 0, 0, 0, 0, bias]));
    };
    assert!(refusal(&|net: &mut Builder| bias(net, 1 << 46)).contains("must stay below 2^46"));
    assert!(refusal(&|net: &mut Builder| bias(net, i64::MIN)).contains("must stay below 2^46"));
    assert!(
        refusal(&|net: &mut Builder| net.value(5).scale = 1e-6).contains("s_x * s_w / s_y of int16 is not in [0, 2^7)")
    );
    let int32 = Tensor::Int32(vec![0; 7]);
    let mut net = wide_net();
    net.model.layers[4].tensors.insert("bias".into(), int32);
    let needed = write_with(&net.model, ops::ALL).unwrap_err().to_string();
    assert!(needed.contains("int64 of length 7, it is int32 of length 7"), "{needed}");
    net.value(0).dtype = Dtype::Int8;
    assert!(write_with(&net.model, ops::ALL).unwrap_err().to_string().contains("another dtype than the kernel's"));
}

#[test]
fn constants_lie_inside_the_image_and_have_the_right_length() {
    let with_constants =
        ["conv2d", "conv2d_add", "depthwise_conv2d", "fully_connected", "add", "requantize", "softmax", "table"];
    for operator in with_constants {
        let image = model_with(operator).image();
        let constant = record(&image, find(&image, operator)).constants;
        let (offset, length) = (image.word(constant), image.word(constant + 4));
        for (word, value, expected) in [
            (0, u32::MAX, "a constant lies outside the image"),
            (0, image.word(place::CONSTANTS + 4) - length + 1, "a constant lies outside the image"),
            (4, u32::MAX - offset, "a constant lies outside the image"),
            (4, length - 8, ""),
            (4, 0, ""),
        ] {
            let mut image = image.clone();
            image.patch(constant + word, value);
            let rule = rule(operator, refused(&image));
            assert!(rule == expected || expected.is_empty(), "{operator}: {rule}");
        }
    }
}

#[test]
fn weights_that_belong_to_no_channel_are_zeros() {
    // Five output channels: the last three lanes of the second block are unused.
    let net = conv_net();
    for position in [27, 2 * 27 - 1] {
        for lane in 1..4 {
            assert_eq!(
                rule_in(&net, "conv2d", 0, position, 1 << (8 * lane)),
                "a weight that belongs to no channel is not 0, in lane",
                "position {position}, lane {lane}"
            );
        }
    }
}

#[test]
fn tables_are_loops_over_elements_of_the_input() {
    let net = variants_net();
    // Five words a part: start, outer and inner count, outer and inner step. Of the channels the first part is zeros.
    let rule = |table: usize, part: usize, word: usize, value| rule_in(&net, "move", table, 5 * part + word, value);
    for table in 0..3 {
        assert_eq!(rule(table, 0, 0, -2), "a part of a table starts below -1");
        for count in [1, 2] {
            assert_eq!(rule(table, 0, count, 0), "a part of a table is empty, part");
            assert_eq!(rule(table, 0, count, 1 << 28 | 1), "a table has more than 2^28 entries, part");
        }
        assert_eq!(rule(table, 0, 1, 2), "the tables have more entries than the output");
    }
    assert_eq!(rule(2, 0, 2, 8), "the tables have fewer entries than the output");
    for (part, word) in [(1, 0), (1, 3), (1, 4), (2, 3)] {
        assert_eq!(rule(2, part, word, 16), "the highest element that is read is not in the input");
    }
    assert_eq!(rule(2, 2, 3, i32::MIN), "the lowest element that is read is below 0");
}
