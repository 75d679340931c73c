//! Descriptions that the writer refuses.

use nano_core::Error;
use nano_core::image::{
    HeadDescription, OutputDescription, SgdDescription, Tensor, ValueDescription, WriteError, write,
};
use nano_core::train::Loss;

use crate::builder::{Builder, SCALE, Window, conv_net, head_net, value};

fn refused(net: &Builder) -> WriteError {
    write(&net.model).expect_err("the description is wrong")
}

#[test]
fn an_unknown_operator_is_refused() {
    let mut net = conv_net();
    net.model.layers[2].operator = "conv3d".into();
    assert_eq!(refused(&net), WriteError::UnknownOperator("conv3d".into()));
    assert_eq!(refused(&net).to_string(), "there is no operator \"conv3d\"");
}

#[test]
fn attributes_missing_unknown_or_too_large_are_refused() {
    type Change = fn(&mut std::collections::BTreeMap<String, i64>);
    let cases: [(Change, &str); 3] = [
        (
            |attributes| {
                attributes.remove("groups");
            },
            "conv2d: attribute groups is missing",
        ),
        (
            |attributes| {
                attributes.insert("stride".into(), 1);
            },
            "conv2d: attribute stride is unknown",
        ),
        (
            |attributes| {
                attributes.insert("groups".into(), 1 << 31);
            },
            "conv2d: attribute groups does not fit 32 bits",
        ),
    ];
    for (change, message) in cases {
        let mut net = conv_net();
        change(&mut net.model.layers[0].attributes);
        assert_eq!(refused(&net).to_string(), message);
    }
}

#[test]
fn tensors_missing_or_of_another_type_or_length_are_refused() {
    for (tensor, given) in [
        (None, "is missing"),
        (Some(Tensor::Int8(vec![0; 5])), "is int8 of length 5"),
        (Some(Tensor::Int32(vec![0; 6])), "is int32 of length 6"),
        (Some(Tensor::Float32(vec![0.0; 5])), "is float32 of length 5"),
    ] {
        let mut net = conv_net();
        let tensors = &mut net.model.layers[0].tensors;
        match tensor {
            None => tensors.remove("bias"),
            Some(tensor) => tensors.insert("bias".into(), tensor),
        };
        assert_eq!(refused(&net).to_string(), format!("conv2d: tensor bias must be int32 of length 5, it {given}"));
    }
}

#[test]
fn values_without_a_size_a_scale_or_a_zero_point_are_refused() {
    let good = value([1, 1, 8]);
    for (value, message) in [
        (ValueDescription { shape: [1, 0, 8], ..good }, "value shape holds 1"),
        (ValueDescription { shape: [1 << 16; 3], ..good }, "value shape holds 65536"),
        (ValueDescription { shape: [u32::MAX; 3], ..good }, "value shape holds 4294967295"),
        (ValueDescription { scale: f32::NAN, ..good }, "value scale (bits) holds 2143289344"),
        (ValueDescription { scale: f32::INFINITY, ..good }, "value scale (bits) holds 2139095040"),
        (ValueDescription { scale: 0.0, ..good }, "value scale (bits) holds 0"),
        (ValueDescription { zero_point: -129, ..good }, "value zero point holds -129"),
    ] {
        for id in [0, 1] {
            let mut net = Builder::new(0);
            let input = net.input([1, 1, 8]);
            let output = net.requantize(input, SCALE, 0);
            net.output(output);
            *net.value(id) = value;
            assert_eq!(refused(&net).to_string(), format!("the image's field {message}, which is not allowed"));
        }
    }
}

#[test]
fn ids_beyond_the_values_are_refused() {
    let output = || OutputDescription { name: "99".into(), id: 99 };
    let changes: [&dyn Fn(&mut Builder); 2] =
        [&|net| net.model.outputs.push(output()), &|net| net.model.layers[1].inputs[0] = 99];
    for change in changes {
        let mut net = conv_net();
        change(&mut net);
        assert_eq!(refused(&net), WriteError::ValueId(99));
    }
    // A layer cannot read its own output.
    let mut net = conv_net();
    net.model.layers[1].inputs[0] = 2;
    assert_eq!(refused(&net).to_string(), "value 2 is read, and nothing before makes it");
}

#[test]
fn layers_with_wrong_numbers_of_inputs_and_outputs_are_refused() {
    for count in [0, 2, 3, 300] {
        let mut net = conv_net();
        net.model.layers[0].inputs = vec![0; count];
        let rule = "wrong number of inputs";
        assert_eq!(refused(&net), WriteError::Layer(Error::Layer { operator: "conv2d", rule, value: count as i64 }));
    }
    for count in [0, 2, 300] {
        let mut net = conv_net();
        let last = net.model.layers.last_mut().unwrap();
        last.outputs = vec![last.outputs[0]; count];
        net.model.outputs.clear();
        net.output(0);
        let rule = "wrong number of outputs";
        assert_eq!(refused(&net), WriteError::Layer(Error::Layer { operator: "softmax", rule, value: count as i64 }));
    }
    let mut net = conv_net();
    let sum = net.model.layers.iter_mut().find(|layer| layer.operator == "add").unwrap();
    sum.inputs.pop();
    assert_eq!(refused(&net).to_string(), "add: wrong number of inputs (found 1)");
}

#[test]
fn names_and_labels_must_be_lines_and_names_short() {
    let mut net = conv_net();
    net.model.name = "two\nlines".into();
    for name in ["two\nlines", "carriage\rreturn", "zero\0", &"x".repeat(65)] {
        net.model.name = name.into();
        assert_eq!(refused(&net), WriteError::Name(name.into()));
    }
    net.model.name = "x".repeat(64);
    assert_eq!(net.image().bytes().len() % 4, 0);
    for label in ["carriage\rreturn", "", "zero\0", &"x".repeat(65)] {
        net.model.labels = vec!["yes".into(), label.into()];
        assert_eq!(refused(&net), WriteError::Label(label.into()));
    }
    net.model.labels = ["yes", "no", "perhaps", "no"].map(String::from).into();
    assert_eq!(refused(&net).to_string(), "two classes have the label \"no\"");
}

#[test]
fn more_labels_than_classes_are_refused() {
    let mut net = conv_net();
    net.model.labels = (0..11).map(|class| format!("class {class}")).collect();
    assert_eq!(net.image().bytes().len() % 4, 0);
    net.model.labels.push("one more".into());
    assert_eq!(refused(&net).to_string(), "there is room for 11 names of classes, and no more");
    // With a head, its classes are counted, not its features.
    let mut net = head_net();
    net.model.labels = ["yes", "no", "perhaps", "often"].map(String::from).into();
    assert_eq!(refused(&net).to_string(), "there is room for 3 names of classes, and no more");
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    for (window, message) in [
        (
            Window { padding: [32768, 0, 0, 0], ..Window::new([1, 1]) },
            "conv2d: the padding is not 0 to 32767 (found 32768)",
        ),
        (Window { stride: [1, 40000], ..Window::new([1, 1]) }, "conv2d: the stride is not 1 to 32768 (found 40000)"),
    ] {
        let mut net = Builder::new(0);
        let input = net.input([4, 4, 1]);
        let output = net.conv2d(input, 1, 1, window);
        net.output(output);
        assert_eq!(refused(&net).to_string(), message);
    }
}

#[test]
fn scales_whose_ratio_is_out_of_range_are_refused() {
    let mut net = Builder::new(0);
    let input = net.input([1, 1, 2]);
    net.weight_scale = 1e12;
    let output = net.fully_connected(input, 1);
    net.output(output);
    assert!(refused(&net).to_string().starts_with("fully_connected: s_x * s_w / s_y is not in [0, 2^30) (found "));

    let mut net = Builder::new(0);
    let input = net.input([1, 1, 2]);
    net.value(input).scale = 1e-9;
    let output = net.softmax(input);
    net.output(output);
    assert!(refused(&net).to_string().starts_with("softmax: the input's scale is not above 2^-26 (found "));
}

#[test]
fn an_accumulator_that_could_overflow_is_refused() {
    let mut net = Builder::new(0);
    let input = net.input([1, 1, 2]);
    let output = net.fully_connected(input, 2);
    net.output(output);
    net.model.layers[0].tensors.insert("bias".into(), Tensor::Int32(vec![0, i32::MAX]));
    let message = refused(&net).to_string();
    assert!(message.starts_with("fully_connected: the largest accumulator of a channel, "), "{message}");
    let found = message.split("(found ").nth(1).and_then(|number| number.trim_end_matches(')').parse::<i64>().ok());
    assert!(found.is_some_and(|accumulator| accumulator >= 1 << 31), "{message}");
}

#[test]
fn heads_that_cannot_learn_are_refused() {
    type Change = fn(&mut SgdDescription);
    let cases: [(Change, &str); 16] = [
        (|head| head.weights[3] = f32::NAN, "sgd head: the weights hold NaN or infinity (found NaN)"),
        (|head| head.weights[0] = f32::NEG_INFINITY, "sgd head: the weights hold NaN or infinity (found inf)"),
        (|head| head.biases[2] = f32::NAN, "sgd head: the weights hold NaN or infinity (found NaN)"),
        (|head| head.weights.truncate(5), "sgd head: needs classes * features weights, has (found 5)"),
        (|head| head.biases.clear(), "sgd head: needs classes * features weights, has (found 18)"),
        (
            |head| head.descent.class_weights = vec![1.0; 2],
            "class_weights is of length 2; expected 3, one for each class",
        ),
        (
            |head| head.descent.class_weights = vec![1.0, 0.0, 1.0],
            "class_weights is 0.0 for class 1; expected finite numbers above 0",
        ),
        (
            |head| head.descent.class_weights = vec![1.0, 1.0, f64::NAN],
            "class_weights is NaN for class 2; expected finite numbers above 0",
        ),
        (
            |head| head.descent.class_weights = vec![1e-30, 1.0, 1.0],
            "class_weights is 1e-30 for class 0; expected at least ",
        ),
        (|head| head.descent.frozen = vec![0, 3], "frozen is [0, 3]; expected classes from 0 to 2"),
        (|head| head.descent.frozen = vec![2, 0, 1], "frozen is [2, 0, 1]; expected at least one class that learns"),
        (|head| head.descent.halve_every = 1 << 31, "halve_every is 2147483648; expected at most 2147483647"),
        (
            |head| head.descent.loss = Loss::Squared,
            "loss is \"squared\" for a layer of 3 outputs; expected a layer of at most 1",
        ),
        (|head| head.descent.learning_rate = Some(f64::NAN), "learning_rate is NaN; expected "),
        (|head| head.descent.learning_rate = Some(0.0), "learning_rate is 0.0; expected "),
        (|head| head.descent.learning_rate = Some(1e9), "learning_rate is 1000000000.0; expected "),
    ];
    for (change, message) in cases {
        let mut net = head_net();
        change(sgd(&mut net));
        let error = refused(&net).to_string();
        assert!(error.starts_with(message), "{error}, expected: {message}");
    }
}

fn sgd(net: &mut Builder) -> &mut SgdDescription {
    let Some(HeadDescription::Sgd(head)) = &mut net.model.head else { panic!("another trainer") };
    head
}

#[test]
fn the_range_of_learning_rates_is_what_can_be() {
    let mut net = head_net();
    sgd(&mut net).descent.learning_rate = Some(-0.1);
    let error = refused(&net).to_string();
    let range = error.split("expected ").nth(1).unwrap().split(" for ").next().unwrap();
    let (least, most) = range.split_once(" to ").unwrap();
    let (least, most): (f64, f64) = (least.parse().unwrap(), most.parse().unwrap());
    // Shifts of 1 to 30, and mantissas up to twice the least.
    assert!((0.99..1.01).contains(&(most / least / (1u64 << 30) as f64)), "{error}");
    for (rate, can_be) in [(least, true), (most, true), (least * 0.99, false), (most * 1.01, false)] {
        sgd(&mut net).descent.learning_rate = Some(rate);
        assert_eq!(write(&net.model).is_ok(), can_be, "{rate}: {error}");
    }
}
