//! Models of several inputs and outputs, of int16 and int32, and with a state.

use nano_core::image::{ChannelScale, Cost, Dtype, Image, ModelDescription, Packed, ValueDescription, write_with};
use nano_core::train::{Head, certainty};
use nano_core::{Alias, CheckedImage, Kernel, Model, Node, Operator, Output, Quantization, Run, ops};
use torch_nano_device::{
    Block, ElementType, Failure, GraphValue, NoFlash, Options, Request, Response, Sensing, SensingOptions, Session,
    Sizes, Smoothing, SpareCopy,
};
use zerocopy::IntoBytes;

use crate::builder::{Aligned, Builder, head_net, two_by_two, value};
use crate::stream::{FRAME, OPTIONS, RING, ask, class, ram, session, session_with};

/// Bytes of frames that are shorter than an input and an output.
const SHORT: usize = 64;

/// Inputs of int16, int8 and int32 that are also outputs, in another order; a layer reads the int8 one, too.
pub fn passed_through() -> Builder {
    let mut net = Builder::new(8);
    for (index, dtype) in [Dtype::Int16, Dtype::Int8, Dtype::Int32].into_iter().enumerate() {
        let id = net.input([1, 2, 5]);
        let scale = 0.001 * (index + 1) as f32;
        let zero_point = if dtype == Dtype::Int8 { -3 } else { 0 };
        *net.value(id) = ValueDescription { dtype, scale, zero_point, ..value([1, 2, 5]) };
    }
    let hidden = net.fully_connected(1, 4);
    [2, hidden, 0].into_iter().for_each(|id| net.output(id));
    net
}

fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

/// The outputs for an input, one after the other.
fn expected(image: &Aligned, mut input: &[u8]) -> Vec<u8> {
    let mut arena = vec![0u32; Image::new(image.bytes()).unwrap().arena_length().div_ceil(4)];
    let arena = zerocopy::FromBytes::mut_from_bytes(arena.as_mut_bytes()).unwrap();
    let mut model = Model::new(image.bytes(), arena, ops::ALL).unwrap();
    for index in 0..model.image().input_count() {
        let place = model.input(index).as_mut_bytes();
        let (own, rest) = input.split_at(place.len());
        place.copy_from_slice(own);
        input = rest;
    }
    assert!(input.is_empty());
    model.run();
    (0..model.image().output_count()).flat_map(|index| model.output(index).as_bytes().to_vec()).collect()
}

/// Sends an input in parts, except the rest that fits the next request; returns that rest.
fn send_parts<'i, C: FnMut() -> u64>(session: &mut Session<'_, C, NoFlash>, input: &'i [u8]) -> &'i [u8] {
    let (parts, rest) = input.split_at((input.len() - 1) / SHORT * SHORT);
    for (part, offset) in parts.chunks(SHORT).zip((0..).step_by(SHORT)) {
        let length = offset + SHORT as u32;
        ask(session, Request::Input { offset, bytes: part }, |response| {
            assert_eq!(response, Response::Received { length });
        });
    }
    rest
}

/// Reads a whole block; returns it and the lengths of its parts.
fn read<'a, C: FnMut() -> u64, H: Head<'a>>(
    session: &mut Session<'a, C, NoFlash, H>,
    block: Block,
    mut whole: Vec<u8>,
) -> (Vec<u8>, Vec<usize>) {
    let mut parts = vec![whole.len()];
    loop {
        let length = ask(session, Request::Read { block, offset: whole.len() as u32 }, |response| {
            let Response::Part { length, bytes, .. } = response else { panic!("{response:?}") };
            whole.extend_from_slice(bytes);
            parts.push(bytes.len());
            length as usize
        });
        if whole.len() >= length {
            return (whole, parts);
        }
    }
}

#[test]
fn inputs_and_outputs_are_sent_one_after_the_other_in_any_parts() {
    for (net, input_length, output_lengths) in
        [(two_by_two(), 160, vec![64, 16, 64, 16]), (passed_through(), 70, vec![40, 4, 20])]
    {
        let image = net.image();
        for frame in [SHORT, FRAME] {
            let options = Options { frame, ..OPTIONS };
            let view = Image::new(image.bytes()).unwrap();
            let mut ram = vec![0xdead_beef; Sizes::of(&view, RING, frame, SpareCopy::Ram).words()];
            let mut session = session_with(&image, &mut ram, options, NoFlash);
            for seed in 0..20 {
                let input = bytes(input_length, seed);
                let expected = expected(&image, &input);
                let rest = if frame == SHORT { send_parts(&mut session, &input) } else { &input };
                let first = ask(&mut session, Request::Features { input: rest }, |response| match response {
                    Response::Features { output, .. } => output.to_vec(),
                    other => panic!("{other:?}"),
                });
                let (whole, parts) = read(&mut session, Block::Output, first);
                assert_eq!(whole, expected, "seed {seed}, frames of {frame}");
                if frame == SHORT {
                    assert_eq!(parts, output_lengths, "a part ends where a frame or an output does");
                }
            }
        }
    }
}

#[test]
fn every_length_but_that_of_all_inputs_is_refused() {
    let image = passed_through().image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    for given in (0..90).filter(|&given| given != 70) {
        let input = bytes(given, 0);
        let refused = Response::Refused(Failure::Input { needed: 70, given: given as u32 });
        ask(&mut session, Request::Predict { input: &input }, |response| assert_eq!(response, refused));
    }
    let input = bytes(71, 1);
    ask(&mut session, Request::Input { offset: 0, bytes: &input }, |response| {
        assert_eq!(response, Response::Refused(Failure::Range { length: 70 }));
    });
    ask(&mut session, Request::Input { offset: 0, bytes: &input[..69] }, |response| {
        assert_eq!(response, Response::Received { length: 69 });
    });
    ask(&mut session, Request::Predict { input: &input[..2] }, |response| {
        assert_eq!(response, Response::Refused(Failure::Input { needed: 1, given: 2 }));
    });
    ask(&mut session, Request::Predict { input: &input[69..70] }, |response| {
        assert!(matches!(response, Response::Prediction { .. }));
    });
}

#[test]
fn the_class_is_the_largest_element_of_the_first_output_of_any_dtype() {
    for dtype in Dtype::ALL {
        let mut net = Builder::new(0);
        let (scale, zero_point) = (2e-5, 0);
        let input = net.input([1, 1, 6]);
        *net.value(input) = ValueDescription { dtype, scale, zero_point, ..value([1, 1, 6]) };
        let other = net.input([1, 1, 300]);
        net.output(input);
        net.output(other);
        let image = net.image();
        let mut ram = ram(&image);
        let mut session = session_with(&image, &mut ram, OPTIONS, NoFlash);
        let least = match dtype {
            Dtype::Int8 => i8::MIN.into(),
            Dtype::Int16 => i16::MIN.into(),
            Dtype::Int32 => i32::MIN + 1,
        };
        // The first of equal elements. Reading bytes as elements, or the other output, would give another class.
        for (elements, expected) in
            [([least, 3, 7, -5, 7, -1], 2), ([least; 6], 0), ([least, least, least, -1, -2, least], 3)]
        {
            let own = elements.iter().flat_map(|element| element.to_le_bytes().into_iter().take(dtype.size()));
            let input: Vec<u8> = own.chain([127; 300]).collect();
            let (first, rest) = input.split_at(input.len() - 100);
            let mut offset = 0;
            for part in first.chunks(FRAME) {
                ask(&mut session, Request::Input { offset, bytes: part }, |_| ());
                offset += part.len() as u32;
            }
            ask(&mut session, Request::Predict { input: rest }, |response| {
                let Response::Prediction { class, confidence: sure, logit_scale, .. } = response else {
                    panic!("{response:?}")
                };
                assert_eq!((class, logit_scale), (expected, scale), "{dtype:?}");
                assert_eq!(sure, Some(certainty(elements.into_iter(), scale, 0).confidence));
            });
        }
    }
}

#[test]
fn each_input_and_output_is_described() {
    let mut net = passed_through();
    net.model.inputs[1].name = "n".repeat(64);
    let channels = |count| (0..count).map(|channel| ChannelScale { scale: 0.5 + channel as f32, offset: -1.5 });
    net.model.inputs[1].channels = channels(5).collect();
    let image = net.image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let names = [("input 0", 0), (&"n".repeat(64), 40), ("input 2", 0)];
    let elements = [ElementType::Int16, ElementType::Int8, ElementType::Int32];
    for (index, ((name, channels_length), elements)) in names.into_iter().zip(elements).enumerate() {
        let ValueDescription { shape, scale, zero_point, .. } = *net.value(index);
        let expected = Response::Description { name, elements, shape, scale, zero_point, channels_length };
        let value = GraphValue::Input(index as u32);
        ask(&mut session, Request::Describe { value }, |response| assert_eq!(response, expected));
    }
    let output = Response::Description {
        name: "output 1",
        elements: ElementType::Int8,
        shape: [1, 1, 4],
        scale: crate::builder::SCALE,
        zero_point: crate::builder::ZERO_POINT,
        channels_length: 0,
    };
    ask(&mut session, Request::Describe { value: GraphValue::Output(1) }, |response| assert_eq!(response, output));
    let (whole, _) = read(&mut session, Block::Channels(1), vec![]);
    assert_eq!(whole, channels(5).flat_map(|channel| channel.as_bytes().to_vec()).collect::<Vec<_>>());
    assert_eq!(read(&mut session, Block::Channels(0), vec![]).0, []);
    for request in [
        Request::Describe { value: GraphValue::Input(3) },
        Request::Describe { value: GraphValue::Output(u32::MAX) },
        Request::Read { block: Block::Channels(3), offset: 0 },
    ] {
        let refused = Response::Refused(Failure::GraphValue { count: 3 });
        ask(&mut session, request, |response| assert_eq!(response, refused, "{request:?}"));
    }
}

#[test]
fn a_session_that_begins_leaves_the_stream_of_a_device_that_senses() {
    let image = summing();
    let mut ram = ram(&image);
    let checked = CheckedImage::new(image.bytes(), KERNELS).unwrap();
    let mut session = Session::<_, _>::new(checked, &mut ram, OPTIONS, NoFlash, || 0).unwrap();
    let (mut window, mut kept) = ([0; 2], [0; 4]);
    let smoothing = Smoothing::new(1, 1).unwrap();
    let options = SensingOptions { sample: 2, hop: 1, smoothing, epochs: 0, pause: 0, slice: 1 };
    let mut sensing = Sensing::new(&mut session.device, &mut window, &mut kept, options).unwrap();
    // One unit of the input, which it quantizes, and its negative.
    let (scale, zero_point) = (value([1, 1, 2]).scale, value([1, 1, 2]).zero_point as f32);
    let sample = [1.0, -1.0].map(|unit| (unit - zero_point) * scale);
    let mut step = |session: &mut Session<'_, _, _>, sums: [i16; 2]| {
        sensing.sense(&mut session.device, &sample).unwrap().expect("each sample is a step");
        assert_eq!(session.device.output(0).unwrap().as_bytes(), sums.as_bytes());
    };
    step(&mut session, [START + 1, START - 1]);
    step(&mut session, [START + 2, START - 2]);
    ask(&mut session, Request::Begin, |response| assert_eq!(response, Response::Done));
    // What ran before is not of this session.
    ask(&mut session, Request::Read { block: Block::Output, offset: 0 }, |response| {
        assert_eq!(response, Response::Refused(Failure::NoRun));
    });
    step(&mut session, [START + 3, START - 3]);
    ask(&mut session, Request::ResetStates, |response| assert_eq!(response, Response::Done));
    step(&mut session, [START + 1, START - 1]);
}

#[test]
fn channel_scales_longer_than_a_frame_come_in_parts() {
    let mut net = Builder::new(0);
    let input = net.input([1, 1, 300]);
    net.model.inputs[0].channels =
        (0..300).map(|channel| ChannelScale { scale: 1.0 + channel as f32, offset: -(channel as f32) }).collect();
    let output = net.fully_connected(input, 3);
    net.output(output);
    let image = net.image();
    let mut ram = ram(&image);
    let (whole, parts) = read(&mut session(&image, &mut ram), Block::Channels(0), vec![]);
    assert_eq!(whole, net.model.inputs[0].channels.as_bytes());
    assert!(parts.len() > 300 * 8 / FRAME);
}

#[test]
fn a_head_sees_the_first_of_several_outputs() {
    let mut net = head_net();
    net.output(0);
    let image = net.image();
    let mut ram = ram(&image);
    let mut session = session(&image, &mut ram);
    let length = Image::new(image.bytes()).unwrap().input(0).len();
    let input = bytes(length, 3);
    ask(&mut session, Request::Learn { label: class(1), input: &input }, |response| {
        assert!(matches!(response, Response::Learned { samples: 1, .. }));
    });
    let first = ask(&mut session, Request::Predict { input: &input }, |response| match response {
        Response::Prediction { output, logits, .. } => {
            assert_eq!(logits.len(), 12);
            output.to_vec()
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(read(&mut session, Block::Output, first).0, expected(&image, &input));
}

/// The state of [`ADD_UP`] at the start.
const START: i16 = 300;

/// The sums of all inputs so far, int16, which are the operator's state and its output.
static ADD_UP: Operator = Operator {
    name: "add_up",
    attributes: &[],
    inputs: 1..=1,
    outputs: &[Output { quantization: Quantization::Own, reset: Some(reset_sums) }],
    alias: Alias::Never,
    shape: |node, _| Ok(node.input(0).shape),
    macs: |_| 0,
};

fn reset_sums(_: &Node<'_>, state: &mut [i8]) {
    state.as_chunks_mut().0.iter_mut().for_each(|sum| *sum = START.to_le_bytes().map(|byte| byte as i8));
}

static KERNELS: &[Kernel] = &[Kernel {
    id: 1000,
    name: "add_up",
    operator: &ADD_UP,
    inputs: &[Dtype::Int8],
    outputs: &[Dtype::Int16],
    pitched: false,
    forms: &[0],
    check: |_| Ok(()),
    run: Run::Apart(|_, mut io| {
        let sums = io.outputs.take::<i16>();
        sums.iter_mut().zip(io.inputs.get::<i8>(0)).for_each(|(sum, &x)| *sum += i16::from(x));
    }),
    cost: |_| Some(Cost::instructions(0)),
    pack: |_| Ok(Packed::default()),
}];

fn summing() -> Aligned {
    let mut net = Builder::new(0);
    let input = net.input([1, 1, 2]);
    let state = ValueDescription { dtype: Dtype::Int16, zero_point: 0, state: true, ..value([1, 1, 2]) };
    let sums = net.layer("add_up", &[input], state, [], []);
    net.output(sums);
    let model: &ModelDescription = &net.model;
    Aligned::new(&write_with(model, KERNELS).expect("the test's model is a valid one"))
}

#[test]
fn a_state_goes_on_from_run_to_run_until_it_is_reset_or_a_session_begins() {
    let image = summing();
    let mut ram = ram(&image);
    let checked = CheckedImage::new(image.bytes(), KERNELS).unwrap();
    let mut session = Session::<_, _>::new(checked, &mut ram, OPTIONS, NoFlash, || 0).unwrap();
    ask(&mut session, Request::Info, |response| {
        assert!(matches!(response, Response::Info { has_states: true, output_length: 4, .. }));
    });
    let mut run = |request: Option<Request<'_>>, expected: [i16; 2]| {
        if let Some(request) = request {
            ask(&mut session, request, |response| assert_eq!(response, Response::Done));
            // The output was the state.
            ask(&mut session, Request::Read { block: Block::Output, offset: 0 }, |response| {
                assert_eq!(response, Response::Refused(Failure::NoRun));
            });
        }
        ask(&mut session, Request::Predict { input: &[1, 0xff] }, |response| {
            let Response::Prediction { output, .. } = response else { panic!("{response:?}") };
            assert_eq!(output, expected.as_bytes());
        });
    };
    run(None, [START + 1, START - 1]);
    run(None, [START + 2, START - 2]);
    run(Some(Request::ResetStates), [START + 1, START - 1]);
    run(None, [START + 2, START - 2]);
    run(Some(Request::Begin), [START + 1, START - 1]);
}
