//! Frames by themselves.

use torch_nano_device::{Failure, Request, Response, frame};

#[test]
fn every_message_comes_back() {
    let bytes: Vec<u8> = (0..=255).cycle().take(700).collect();
    let mut buffer = vec![0; frame::length(2 * bytes.len())];
    for request in [
        Request::Info,
        Request::Predict { input: &bytes },
        Request::Profile { input: &[] },
        Request::Learn { label: u16::MAX, input: &[0; 600] },
        Request::Train { epochs: u32::MAX },
        Request::ReadHead,
        Request::Reset,
    ] {
        let (end, frame) = frame::encode(&request, &mut buffer).unwrap().split_last_mut().unwrap();
        assert!(*end == frame::END && !frame.contains(&frame::END));
        assert_eq!(frame::decode(frame), Some(request));
    }
    for response in [
        Response::Info {
            protocol: 1,
            model_id: u32::MAX,
            name: "watch",
            input_length: 600,
            output_length: 64,
            classes: 7,
            ring_capacity: 1024,
            arena_length: 3200,
        },
        Response::Prediction { class: 3, output: &bytes, logits: &bytes, ticks: u64::MAX },
        Response::Profile { layers: &bytes },
        Response::Learned { samples: 1 },
        Response::Trained { steps: 0, ticks: 1 << 40 },
        Response::Head { state: &bytes },
        Response::Reset,
        Response::Refused(Failure::Label { label: 9, classes: 3 }),
    ] {
        let (_, frame) = frame::encode(&response, &mut buffer).unwrap().split_last_mut().unwrap();
        assert_eq!(frame::decode(frame), Some(response));
    }
}

#[test]
fn the_room_that_is_counted_on_is_enough_for_every_payload() {
    // Zeros cost COBS nothing; without a zero it needs a code every 254 bytes.
    for length in (0..600).chain([5000, 70_000]) {
        for fill in [0, 1, 255] {
            let payload = vec![fill; length];
            let mut buffer = vec![0; frame::length(length)];
            let half = length / 2;
            let (output, logits) = payload.split_at(half);
            let largest = Response::Prediction { class: u32::MAX, output, logits, ticks: u64::MAX };
            assert!(frame::encode(&largest, &mut buffer).is_some(), "{length} bytes of {fill}");
            assert!(frame::encode(&Request::Learn { label: u16::MAX, input: &payload }, &mut buffer).is_some());
        }
    }
    assert_eq!(frame::length(usize::MAX), usize::MAX);
}

#[test]
fn a_buffer_that_is_too_short_is_no_frame() {
    let request = Request::Learn { label: 500, input: &[1, 2, 0, 4] };
    let needed = frame::encode(&request, &mut [0; 100]).unwrap().len();
    for length in 0..needed {
        assert!(frame::encode(&request, &mut vec![0; length]).is_none(), "{length} of {needed} bytes");
    }
    assert!(frame::encode(&request, &mut vec![0; needed]).is_some());
}

#[test]
fn nothing_shorter_than_a_message_is_one() {
    let mut buffer = [0; 100];
    let frame = frame::encode(&Request::Train { epochs: 1000 }, &mut buffer).unwrap().to_vec();
    for length in 0..frame.len() - 1 {
        assert_eq!(frame::decode::<Request<'_>>(&mut frame[..length].to_vec()), None, "{length} bytes");
    }
    assert_eq!(
        frame::decode::<Request<'_>>(&mut frame[..frame.len() - 1].to_vec()),
        Some(Request::Train { epochs: 1000 })
    );
}
