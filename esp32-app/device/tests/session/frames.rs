//! Encoding and decoding of frames, without a session.

use torch_nano_device::{
    Block, Class, ElementType, Failure, GraphValue, Label, Request, RequestHeader, Response, ResponseHeader, SavedHead,
    Settings, Stats, StorageError, TargetKind, UpdateError, UpdateState, frame,
};

use crate::stream::class;

const BYTES: [u8; 4] = [1, 2, 0, 4];

/// One request of every kind.
pub fn requests<'a>(bytes: &'a [u8], name: &'a str) -> Vec<Request<'a>> {
    vec![
        Request::Begin,
        Request::Info,
        Request::Describe { value: GraphValue::Output(u32::MAX) },
        Request::Predict { input: bytes },
        Request::Features { input: bytes },
        Request::Profile { input: &[] },
        Request::Input { offset: u32::MAX, bytes },
        Request::ResetStates,
        Request::Learn { label: class(u16::MAX), input: bytes },
        Request::Learn { label: Label::Class(Class::Name(name)), input: bytes },
        Request::Learn { label: Label::Bits(u32::MAX), input: bytes },
        Request::Learn { label: Label::Value(i32::MIN), input: bytes },
        Request::Train { first_epoch: 0, epochs: u32::MAX },
        Request::Continue,
        Request::Stop,
        Request::Commit,
        Request::Undo,
        Request::AddClass { name },
        Request::Forget { class: Class::Name(name) },
        Request::ClassName { class: 3 },
        Request::Reset,
        Request::Save { replace: true },
        Request::Load,
        Request::Read { block: Block::Logits, offset: 4 },
        Request::Read { block: Block::Channels(u32::MAX), offset: u32::MAX },
        Request::WriteHead { offset: 5, bytes },
        Request::ReplaceHead { checksum: u32::MAX },
        Request::Configure { settings: Settings { rejection: u16::MAX, save_interval: u32::MAX } },
        Request::Stats,
    ]
}

fn responses(bytes: &[u8]) -> Vec<Response<'_>> {
    let settings = Settings { rejection: u16::MAX, save_interval: u32::MAX };
    let most = u32::MAX;
    let stats = Stats {
        requests: most,
        refused_requests: most,
        refused_frames: most,
        repeated: most,
        runs: most,
        learned: most,
        steps: most,
        taken_back: most,
        changes: most,
        saves: most,
        failed_saves: most,
        startup_ticks: u64::MAX,
    };
    vec![
        Response::Refused(Failure::Label { label: 9, classes: 3 }),
        Response::Refused(Failure::Storage(StorageError::OtherModel { model_id: most })),
        Response::Refused(Failure::Update(UpdateError::Window { needed: [most; 2], given: [most; 2] })),
        Response::Updated { count: most, same_head: true },
        Response::Info {
            model_id: most,
            name: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            inputs: most,
            outputs: most,
            has_states: true,
            input_length: most,
            output_length: most,
            layers: most,
            classes: most,
            class_capacity: most,
            head_length: most,
            ring_capacity: most,
            arena_length: most,
            frame_length: most,
            settings,
            saved: Err(StorageError::TooSmall { needed: most, given: most }),
            restored: true,
            target: Some(TargetKind::Value),
            update: UpdateState { room: most, count: most, trial: true },
        },
        Response::Description {
            name: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            elements: ElementType::Int32,
            shape: [most; 3],
            scale: f32::MAX,
            zero_point: i32::MIN,
            channels_length: most,
        },
        Response::Prediction {
            class: most,
            confidence: Some(u16::MAX),
            margin: Some(u16::MAX),
            known: true,
            ticks: u64::MAX,
            logit_scale: f32::MAX,
            logits: bytes,
            output: &[],
        },
        Response::Features { ticks: u64::MAX, output: bytes },
        Response::Profile { layers: bytes },
        Response::Received { length: most },
        Response::Learned { samples: most, ticks: u64::MAX },
        Response::Trained { steps: u64::MAX, left: u64::MAX, ticks: u64::MAX, taken_back: true },
        Response::Committed { ticks: u64::MAX },
        Response::Done,
        Response::ClassAdded { class: most },
        Response::ClassName { name: "left arm" },
        Response::Saved { count: most },
        Response::Loaded(SavedHead { count: most, lost: Some(most) }),
        Response::Part { length: most, changes: most, bytes },
        Response::Stats(stats),
    ]
}

#[test]
fn every_message_comes_back() {
    let mut buffer = vec![0; 500];
    let header =
        RequestHeader { sequence: u16::MAX, session: u16::MAX, model_id: Some(u32::MAX), ..RequestHeader::default() };
    for request in requests(&BYTES, "raise") {
        let (end, frame) = frame::encode(&header, &request, &mut buffer).unwrap().split_last_mut().unwrap();
        assert!(*end == frame::END && !frame.contains(&frame::END));
        assert_eq!(frame::decode(frame), Some((header, request)));
    }
    let header = ResponseHeader { protocol: 2, sequence: 700 };
    for response in responses(&BYTES) {
        let (_, frame) = frame::encode(&header, &response, &mut buffer).unwrap().split_last_mut().unwrap();
        assert_eq!(frame::decode(frame), Some((header, response)));
    }
}

#[test]
fn the_refusal_of_another_protocol_is_the_same_in_every_version() {
    let header = ResponseHeader { protocol: 2, sequence: 0 };
    let mut buffer = [0; 50];
    let frame = frame::encode(&header, &Response::Refused(Failure::Protocol { protocol: 2 }), &mut buffer).unwrap();
    let length = frame.len() - 1;
    // Version, sequence, refused, protocol, version.
    assert_eq!(frame::open(&mut frame[..length]), Some(&[2, 0, 0, 0, 2][..]));
}

#[test]
fn the_computed_length_is_enough_for_every_message() {
    // Zeros cost COBS nothing; without a zero it needs a code every 254 bytes.
    let name = "0123456789abcdef";
    let request_header =
        RequestHeader { sequence: u16::MAX, session: u16::MAX, model_id: Some(u32::MAX), ..RequestHeader::default() };
    let response_header = ResponseHeader { protocol: 255, sequence: u16::MAX };
    for length in (64..600).chain([5000, 70_000]) {
        for fill in [0, 1, 255] {
            let payload = vec![fill; length];
            let mut buffer = vec![0; frame::length(length)];
            for request in requests(&payload, name) {
                assert!(
                    frame::encode(&request_header, &request, &mut buffer).is_some(),
                    "{length} of {fill}: {request:?}"
                );
            }
            for response in responses(&payload) {
                let fits = frame::encode(&response_header, &response, &mut buffer).is_some();
                assert!(fits, "{length} bytes of {fill}: {response:?}");
            }
        }
    }
    assert_eq!(frame::length(usize::MAX), usize::MAX);
}

#[test]
fn a_buffer_that_is_too_short_is_no_frame() {
    let header = RequestHeader::default();
    let request = Request::Learn { label: class(500), input: &BYTES };
    let needed = frame::encode(&header, &request, &mut [0; 100]).unwrap().len();
    for length in 0..needed {
        assert!(frame::encode(&header, &request, &mut vec![0; length]).is_none(), "{length} of {needed} bytes");
    }
    assert!(frame::encode(&header, &request, &mut vec![0; needed]).is_some());
}

#[test]
fn nothing_shorter_than_a_message_is_one() {
    let (header, request) = (RequestHeader::default(), Request::Train { first_epoch: 0, epochs: 1000 });
    let mut buffer = [0; 100];
    let frame = frame::encode(&header, &request, &mut buffer).unwrap().to_vec();
    for length in 0..frame.len() - 1 {
        let mut short = frame[..length].to_vec();
        assert_eq!(frame::decode::<RequestHeader, Request<'_>>(&mut short), None, "{length} bytes");
    }
    assert_eq!(frame::decode(&mut frame[..frame.len() - 1].to_vec()), Some((header, request)));
}
