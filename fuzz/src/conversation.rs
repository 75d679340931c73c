//! A session in memory, and requests to it.

use nano_core::image::Image;
use nano_core::{CheckedImage, Error, ops};
use torch_nano_device::{
    Block, Class, GraphValue, Label, Options, Request, RequestHeader, Response, ResponseHeader, Session, Settings,
    Sizes, SpareCopy, frame,
};

use crate::builder::Aligned;
use crate::nor::Nor;
use crate::{head, refusals};

/// A flash of small pages.
pub(crate) type Flash = Nor<512>;
/// A session whose counter does not advance, so that answers do not depend on time.
pub(crate) type Board<'a> = Session<'a, fn() -> u64, Flash>;

const OPTIONS: Options =
    Options { ring: 3, frame: 64, copy: SpareCopy::Flash, settings: Settings { rejection: 0, save_interval: 0 } };

/// The RAM that a session needs, filled with garbage.
pub(crate) fn ram(image: &Image<'_>, options: Options) -> Vec<u32> {
    let words = Sizes::of(image, options.ring, options.frame, options.copy).words();
    vec![0xdead_beef; words.min(1 << 20)]
}

/// A session that starts.
pub(crate) fn start<'a>(
    image: &'a Aligned,
    ram: &'a mut [u32],
    options: Options,
    flash: Flash,
) -> Result<Board<'a>, Error> {
    Session::new(CheckedImage::new(image.bytes(), ops::ALL)?, ram, options, flash, || 0)
}

/// The answer to a frame, both without their end bytes.
pub(crate) fn send(board: &mut Board<'_>, frame: &[u8]) -> Vec<u8> {
    assert!(!frame.is_empty() && !frame.contains(&frame::END));
    let bytes = [frame, &[frame::END]].concat();
    let mut arrived = &bytes[..];
    let mut answer = board.poll(&mut arrived).expect("a whole frame has an answer").to_vec();
    assert!(arrived.is_empty(), "the session left bytes unread");
    assert_eq!(answer.pop(), Some(frame::END), "the answer has no end");
    assert!(!answer.contains(&frame::END), "there is more than one answer");
    answer
}

/// A request as a frame.
pub(crate) fn encoded(header: &RequestHeader, request: &Request<'_>) -> Vec<u8> {
    let length = postcard::to_allocvec(&(header, request)).expect("a Vec takes all").len();
    let mut buffer = vec![0; frame::length(length)];
    let frame = frame::encode(header, request, &mut buffer).and_then(|frame| frame.split_last());
    let (_, bytes) = frame.expect("the buffer is made for it");
    bytes.to_vec()
}

/// The response in a frame.
pub(crate) fn response(answer: &mut [u8]) -> (ResponseHeader, Response<'_>) {
    frame::decode(answer).expect("the answer is a response")
}

/// Sends a request and passes the answer to `see`.
pub(crate) fn ask<T>(board: &mut Board<'_>, request: Request<'_>, see: impl FnOnce(Response<'_>) -> T) -> T {
    let mut answer = send(board, &encoded(&RequestHeader::default(), &request));
    let (_, response) = response(&mut answer);
    if let Response::Refused(failure) = response {
        refusals::failure(&failure);
    }
    see(response)
}

/// The head's state on the device.
pub(crate) fn head_state(board: &mut Board<'_>) -> Vec<u8> {
    let mut state = vec![];
    loop {
        let request = Request::Read { block: Block::Head, offset: state.len() as u32 };
        let whole = ask(board, request, |response| match response {
            Response::Part { length, bytes, .. } => {
                state.extend_from_slice(bytes);
                state.len() >= length as usize
            }
            _ => true,
        });
        if whole {
            return state;
        }
    }
}

/// Bytes of all inputs of an image.
pub(crate) fn input_length(image: &Image<'_>) -> usize {
    (0..image.input_count()).map(|index| image.input(index).range().len()).sum()
}

/// Sends every request to a device with this image, and checks that each gets one answer.
pub(crate) fn every_request(image: &Aligned) -> Result<(), Error> {
    let view = Image::new(image.bytes())?;
    if !view.head().is_none_or(head::is_small) {
        return Ok(());
    }
    let mut ram = ram(&view, OPTIONS);
    let mut board = start(image, &mut ram, OPTIONS, Flash::new(8, 0))?;
    let (length, classes) = ask(&mut board, Request::Info, |response| match response {
        Response::Info { input_length, class_capacity, .. } => (input_length as usize, class_capacity as u16),
        other => panic!("{other:?} to Info"),
    });
    (0..classes.saturating_add(1)).for_each(|class| ask(&mut board, Request::ClassName { class }, |_| ()));
    let state = head_state(&mut board);
    let input = vec![3; length];
    // Inputs longer than a frame are sent in parts.
    let (mut first, rest) = input.split_at(length - length.min(OPTIONS.frame));
    let mut offset = 0;
    let mut fill = |board: &mut Board<'_>| {
        while let Some((part, later)) =
            first.split_at_checked(first.len().min(OPTIONS.frame)).filter(|(part, _)| !part.is_empty())
        {
            ask(board, Request::Input { offset, bytes: part }, |_| ());
            (first, offset) = (later, offset + part.len() as u32);
        }
    };
    fill(&mut board);
    for request in requests(rest) {
        ask(&mut board, request, |_| ());
        let changed = head_state(&mut board);
        assert_eq!(changed.len(), state.len());
    }
    Ok(())
}

/// Every request, each after those that it depends on; `input` is an input, or the rest of one.
pub(crate) fn requests(input: &[u8]) -> Vec<Request<'_>> {
    let labels = [Label::Class(Class::Index(0)), Label::Class(Class::Name("new")), Label::Bits(1), Label::Value(4096)];
    let learn = labels.map(|label| Request::Learn { label, input });
    let runs = [Request::Predict { input }, Request::Features { input }, Request::Profile { input }];
    let blocks = [Block::Output, Block::Logits, Block::Layers, Block::Head, Block::Channels(0), Block::Channels(9)];
    let reads = blocks.map(|block| Request::Read { block, offset: 0 });
    let others = [
        Request::Begin,
        Request::Info,
        Request::Describe { value: GraphValue::Input(0) },
        Request::Describe { value: GraphValue::Output(1) },
        Request::Describe { value: GraphValue::Output(9) },
        Request::ResetStates,
        Request::AddClass { name: "new" },
        Request::Undo,
        Request::AddClass { name: "new" },
        Request::Train { first_epoch: 0, epochs: 2 },
        Request::Train { first_epoch: 0, epochs: 999_999 },
        Request::Continue,
        Request::Save { replace: false },
        Request::Stop,
        Request::Commit,
        Request::ClassName { class: 2 },
        Request::Save { replace: false },
        Request::Forget { class: Class::Index(0) },
        Request::Forget { class: Class::Name("new") },
        Request::Commit,
        Request::Save { replace: true },
        Request::Reset,
        Request::Load,
        Request::Undo,
        Request::Input { offset: 0, bytes: input },
        Request::WriteHead { offset: 0, bytes: input },
        Request::ReplaceHead { checksum: 0 },
        Request::Configure { settings: Settings { rejection: 1 << 14, save_interval: 2 } },
        Request::Stats,
        Request::Label { label: Label::Class(Class::Index(0)) },
        Request::BeginUpdate { length: 64, id: 1 },
        Request::WriteUpdate { offset: 0, bytes: input },
        Request::FinishUpdate,
        Request::ConfirmUpdate,
        Request::SendSamples,
        Request::StopSamples,
        Request::Restart,
    ];
    runs.into_iter().chain(reads).chain(learn).chain(others).collect()
}
