//! Updates of the model by a PC: the requests, what is refused, and what becomes of the head.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use nano_core::image::{Image, Tensor};
use nano_core::train::{AnyHead, Head, SgdHead};
use nano_core::{Kernel, ops};
use torch_nano_device::{
    Capacity, Failure, ImageSlots, Request, RequestHeader, Response, Session, Settings, Slots, SpareCopy, StorageError,
    UpdateError, UpdateState, frame,
};

use crate::builder::{Aligned, Builder, Window, conv_net, head_net};
use crate::learning::sums_net;
use crate::nor::Nor;
use crate::stream::{FRAME, OPTIONS, RING, ask, class, encoded, head_state, input, ram, send};

type Flash = Nor<512>;

/// What a power cut leaves of a board: its flash of heads and that of its slots; and its program.
#[derive(Clone)]
struct Board {
    own: &'static Aligned,
    kernels: &'static [Kernel],
    words: usize,
    window: Option<[usize; 2]>,
    heads: Flash,
    slots: Flash,
}

impl Board {
    fn new(own: &Builder) -> Self {
        Self::of(own.image())
    }

    fn of(own: Aligned) -> Self {
        let own: &Aligned = Box::leak(Box::new(own));
        let (heads, slots) = (Flash::new(16, 1), Flash::new(40, 1));
        Board { own, kernels: ops::ALL, words: 2 * ram(own).len(), window: None, heads, slots }
    }

    /// Starts the board, passes its session to `act`, and cuts its power.
    fn life<H: Head<'static>, T>(&mut self, act: impl FnOnce(&mut Session<'static, fn() -> u64, Flash, H>) -> T) -> T {
        let &mut Board { own, kernels, words, window, .. } = self;
        let capacity = Capacity { kernels, words, ring: RING, frame: FRAME, copy: SpareCopy::Ram, window };
        let base = Image::new(own.bytes()).unwrap().id();
        let mut slots = ImageSlots::new(self.slots.clone().after_power_on(), base);
        let found = slots.start(|image| capacity.check::<H>(image).is_ok()).unwrap();
        let image = found.map_or(own, |found| {
            let bytes = &slots.flash().bytes[found.range.start as usize..found.range.end as usize];
            Box::leak(Box::new(Aligned::new(bytes)))
        });
        let slots = Arc::new(Mutex::new(slots));
        let checked = capacity.check::<H>(image.bytes()).unwrap();
        let ram = Box::leak(vec![0xdead_beef; words].into_boxed_slice());
        let heads = self.heads.clone().after_power_on();
        let mut session = Session::new(checked, ram, OPTIONS, heads, (|| 0) as fn() -> u64).unwrap();
        session.device.allow_updates(Box::leak(Box::new(Shared(slots.clone()))), capacity);
        let result = act(&mut session);
        self.heads = session.device.flash().clone();
        self.slots = slots.lock().unwrap().flash().clone();
        result
    }

    /// [`Board::life`] of a program for heads of any trainer.
    fn start<T>(&mut self, act: impl FnOnce(&mut Any) -> T) -> T {
        self.life::<AnyHead<'static>, T>(act)
    }

    /// The id of the image that a start runs, and its state of updates.
    fn running(&mut self) -> (u32, UpdateState) {
        self.start(|session| {
            ask(session, Request::Info, |response| match response {
                Response::Info { model_id, update, .. } => (model_id, update),
                other => panic!("{other:?}"),
            })
        })
    }
}

/// The slots, whose flash the test looks at after the session has used them.
struct Shared(Arc<Mutex<ImageSlots<Flash>>>);

impl Slots for Shared {
    fn state(&self) -> UpdateState {
        self.0.lock().unwrap().state()
    }

    fn begin(&mut self, length: u32, id: u32) -> Result<u32, UpdateError> {
        self.0.lock().unwrap().begin(length, id)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<u32, UpdateError> {
        self.0.lock().unwrap().write(offset, bytes)
    }

    fn finish(&mut self, check: &mut dyn FnMut(&[u8]) -> Result<(), UpdateError>) -> Result<u32, UpdateError> {
        self.0.lock().unwrap().finish(check)
    }

    fn confirm(&mut self) -> Result<(), UpdateError> {
        self.0.lock().unwrap().confirm()
    }
}

type Any = Session<'static, fn() -> u64, Flash, AnyHead<'static>>;

/// The answer to a request as text.
fn told<H: Head<'static>>(session: &mut Session<'static, fn() -> u64, Flash, H>, request: Request<'_>) -> String {
    ask(session, request, |response| format!("{response:?}"))
}

fn debug(response: impl Debug) -> String {
    format!("{response:?}")
}

fn refusal(error: UpdateError) -> String {
    debug(Response::Refused(Failure::Update(error)))
}

fn id(image: &Aligned) -> u32 {
    Image::new(image.bytes()).unwrap().id()
}

/// Sends an image in parts; the answer to the first request that is refused, or to the last.
fn update<H: Head<'static>>(session: &mut Session<'static, fn() -> u64, Flash, H>, image: &Aligned) -> String {
    let begin = Request::BeginUpdate { length: image.bytes().len() as u32, id: id(image) };
    let begun = told(session, begin);
    if begun != debug(Response::Received { length: 0 }) {
        return begun;
    }
    for (bytes, offset) in image.bytes().chunks(FRAME).zip((0..).step_by(FRAME)) {
        let length = offset + bytes.len() as u32;
        assert_eq!(told(session, Request::WriteUpdate { offset, bytes }), debug(Response::Received { length }));
    }
    told(session, Request::FinishUpdate)
}

/// The same network and head under another name.
fn renamed() -> Builder {
    let mut net = head_net();
    net.model.name = "renamed".into();
    net
}

/// Another network with a head of the same sizes.
fn retrained() -> Builder {
    let mut net = head_net();
    let Some(tensor) = net.model.layers[0].tensors.values_mut().next() else { panic!("a layer has tensors") };
    match tensor {
        Tensor::Int32(bias) => bias[0] += 1,
        Tensor::Int8(weights) => weights[0] ^= 1,
        Tensor::Float32(scales) => scales[0] *= 2.0,
        other => panic!("{other:?}"),
    }
    net
}

/// Learns, trains and saves; returns the head.
fn learn(session: &mut Any) -> Vec<u8> {
    for number in 0..3 {
        ask(session, Request::Learn { label: class(number as u16), input: &input(number) }, |_| ());
    }
    ask(session, Request::Train { first_epoch: 0, epochs: 3 }, |_| ());
    assert!(told(session, Request::Save { replace: false }).starts_with("Saved"));
    head_state(session)
}

fn restored(session: &mut Any) -> bool {
    ask(session, Request::Info, |response| matches!(response, Response::Info { restored: true, .. }))
}

#[test]
fn a_model_with_the_same_head_goes_on_with_what_was_learnt() {
    let (mut board, new) = (Board::new(&head_net()), renamed().image());
    let head = board.start(|session| {
        let head = learn(session);
        assert_eq!(update(session, &new), debug(Response::Updated { count: 1, same_head: true }));
        assert!(!session.device.restarts());
        // The answer is sent, then the session ends.
        let frames = send(session, &encoded(Request::Restart));
        assert_eq!(frames.len(), 1);
        assert!(session.device.restarts());
        head
    });
    assert_ne!(head, head_of(&new));
    board.start(|session| {
        assert!(restored(session));
        assert_eq!(head_state(session), head);
        assert_eq!(told(session, Request::ConfirmUpdate), debug(Response::Done));
        assert_eq!(told(session, Request::ConfirmUpdate), refusal(UpdateError::NothingToConfirm));
    });
    let (model, update) = board.running();
    assert_eq!((model, update.count, update.trial), (id(&new), 1, false));
}

/// The head with which an image starts.
fn head_of(image: &Aligned) -> Vec<u8> {
    let mut memory = ram(image);
    head_state(&mut crate::stream::session(image, &mut memory))
}

#[test]
fn another_head_is_set_aside_and_is_there_again_after_a_fallback() {
    for (name, new) in [("retrained", retrained().image()), ("lda", sums_net(true))] {
        let mut board = Board::new(&head_net());
        let head = board.start(|session| {
            let head = learn(session);
            assert_eq!(update(session, &new), debug(Response::Updated { count: 1, same_head: false }), "{name}");
            head
        });
        let old = id(board.own);
        // On trial: it starts with the image's head, and what is saved of the old one cannot be replaced.
        board.start(|session| {
            assert!(!restored(session), "{name}");
            assert_eq!(head_state(session), head_of(&new), "{name}");
            let other = Response::Refused(Failure::Storage(StorageError::OtherModel { model_id: old }));
            for request in [Request::Load, Request::Save { replace: false }] {
                assert_eq!(told(session, request), debug(other), "{name}");
            }
            assert_eq!(told(session, Request::Save { replace: true }), refusal(UpdateError::Unconfirmed), "{name}");
        });
        // It was not confirmed.
        board.start(|session| {
            assert!(restored(session), "{name}");
            assert_eq!(head_state(session), head, "{name}");
            assert_eq!(update(session, &new), debug(Response::Updated { count: 2, same_head: false }), "{name}");
        });
        board.start(|session| {
            assert_eq!(told(session, Request::ConfirmUpdate), debug(Response::Done), "{name}");
            assert_eq!(told(session, Request::Save { replace: true }), debug(Response::Saved { count: 2 }), "{name}");
        });
        board.start(|session| assert!(restored(session), "{name}"));
    }
}

#[test]
fn what_the_program_cannot_run_is_refused_before_it_is_active() {
    const FEW: &[Kernel] = &[ops::CONV2D, ops::AVERAGE_POOL2D];
    let mut board = Board::of(head_net().image_with(FEW));
    let own = board.own;
    board.kernels = FEW;
    board.words = ram(own).len();
    let softmax = {
        let mut net = Builder::new(9);
        let features = net.input([1, 1, 4]);
        let softmax = net.softmax(features);
        net.output(softmax);
        net.image()
    };
    let large = {
        let mut net = Builder::new(2);
        let series = net.input([1, 64, 20]);
        let features = net.conv2d(series, 6, 2, Window { stride: [1, 2], ..Window::new([1, 5]) });
        net.output(features);
        net.image_with(FEW)
    };
    let given = 4 * board.words as u32;
    let needed = 4 * ram(&large).len() as u32;
    let mut older = renamed().image();
    older.patch(4, older.word(4) - 1);
    older.reseal();
    let mut unknown = renamed().image();
    // The head's trainer is one of a later version.
    let record = unknown.word(52) as usize;
    unknown.patch(record, 99);
    unknown.reseal();
    let version = nano_core::image::VERSION;
    board.start(|session| {
        for (image, error) in [
            (&softmax, UpdateError::Kernel { node: 0, id: ops::SOFTMAX.id }),
            (&large, UpdateError::Ram { needed, given }),
            (&older, UpdateError::Version { found: version - 1, expected: version }),
            (&unknown, UpdateError::Image),
        ] {
            let sent = sent_as(session, image);
            assert_eq!(sent, refusal(error));
            assert_eq!(told(session, Request::FinishUpdate), refusal(UpdateError::NotBegun));
        }
        let room = session_room(session);
        let begin = Request::BeginUpdate { length: room + 1, id: 1 };
        assert_eq!(told(session, begin), refusal(UpdateError::TooLarge { needed: room + 1, given: room }));
    });
    assert_eq!(board.running(), (id(own), UpdateState { room: 19 * 512, count: 0, trial: false }));
    // A program that links one trainer.
    board.kernels = ops::ALL;
    board.words *= 2;
    let lda = sums_net(true);
    let trainer = Image::new(lda.bytes()).unwrap().head().unwrap().trainer;
    board.life::<SgdHead<'static>, _>(|session| {
        assert_eq!(update(session, &lda), refusal(UpdateError::Trainer { trainer }));
        assert_eq!(update(session, &renamed().image()), debug(Response::Updated { count: 1, same_head: true }));
    });
}

/// [`update`] of an image that [`Image::new`] refuses.
fn sent_as(session: &mut Any, image: &Aligned) -> String {
    let begin = Request::BeginUpdate { length: image.bytes().len() as u32, id: image.word(8) };
    assert_eq!(told(session, begin), debug(Response::Received { length: 0 }));
    for (bytes, offset) in image.bytes().chunks(FRAME).zip((0..).step_by(FRAME)) {
        ask(session, Request::WriteUpdate { offset, bytes }, |_| ());
    }
    told(session, Request::FinishUpdate)
}

fn session_room(session: &mut Any) -> u32 {
    ask(session, Request::Info, |response| match response {
        Response::Info { update, .. } => update.room,
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_device_that_senses_takes_the_same_window_only() {
    let mut board = Board::new(&head_net());
    let view = Image::new(board.own.bytes()).unwrap();
    let own = [view.input(0).len(), view.output(0).len()];
    board.window = Some(own);
    let other = conv_net().image();
    let view = Image::new(other.bytes()).unwrap();
    let given = [view.input(0).len() as u32, view.output(0).range().len() as u32];
    board.words *= 4;
    board.start(|session| {
        let needed = own.map(|length| length as u32);
        assert_eq!(update(session, &other), refusal(UpdateError::Window { needed, given }));
        assert_eq!(update(session, &renamed().image()), debug(Response::Updated { count: 1, same_head: true }));
    });
}

#[test]
fn a_device_without_slots_refuses_updates() {
    let image = head_net().image();
    let mut memory = ram(&image);
    let mut session = crate::stream::session(&image, &mut memory);
    let refused = Response::Refused(Failure::Update(UpdateError::NoSlots));
    for request in [
        Request::BeginUpdate { length: 4, id: 1 },
        Request::WriteUpdate { offset: 0, bytes: &[0; 4] },
        Request::FinishUpdate,
        Request::ConfirmUpdate,
        Request::Restart,
    ] {
        ask(&mut session, request, |response| assert_eq!(response, refused, "{request:?}"));
    }
    assert!(!session.device.restarts());
}

#[test]
fn an_interrupted_update_goes_on_and_a_repeated_part_is_written_once() {
    let (mut board, new) = (Board::new(&head_net()), renamed().image());
    board.start(|session| {
        let begin = Request::BeginUpdate { length: new.bytes().len() as u32, id: id(&new) };
        ask(session, begin, |_| ());
        let part = Request::WriteUpdate { offset: 0, bytes: &new.bytes()[..100] };
        let header = RequestHeader { sequence: 9, ..RequestHeader::default() };
        let numbered = frame::encode(&header, &part, &mut [0; 400]).unwrap().to_vec();
        let first = send(session, &numbered);
        assert_eq!(send(session, &numbered), first);
        // Another client goes on.
        assert_eq!(told(session, Request::Begin), debug(Response::Done));
        assert_eq!(told(session, begin), debug(Response::Received { length: 100 }));
        ask(session, Request::WriteUpdate { offset: 100, bytes: &new.bytes()[100..300] }, |_| ());
        let skipped = Request::WriteUpdate { offset: 400, bytes: &new.bytes()[400..500] };
        assert_eq!(told(session, skipped), refusal(UpdateError::Order { needed: 300, given: 400 }));
        let needed = new.bytes().len() as u32;
        assert_eq!(told(session, Request::FinishUpdate), refusal(UpdateError::Incomplete { needed, given: 300 }));
        for (bytes, offset) in new.bytes()[300..].chunks(FRAME).zip((300..).step_by(FRAME)) {
            ask(session, Request::WriteUpdate { offset, bytes }, |_| ());
        }
        assert_eq!(told(session, Request::FinishUpdate), debug(Response::Updated { count: 1, same_head: true }));
    });
    assert_eq!(board.running().0, id(&new));
}

#[test]
fn a_save_by_itself_keeps_the_head_of_the_model_before() {
    let (mut board, new) = (Board::new(&head_net()), retrained().image());
    let head = board.start(|session| {
        let head = learn(session);
        update(session, &new);
        head
    });
    board.start(|session| {
        let settings = Settings { rejection: 0, save_interval: 1 };
        ask(session, Request::Configure { settings }, |_| ());
        ask(session, Request::Learn { label: class(0), input: &input(5) }, |_| ());
        ask(session, Request::Train { first_epoch: 0, epochs: 1 }, |_| ());
        assert_eq!((session.device.stats().saves, session.device.stats().failed_saves), (0, 1));
    });
    board.start(|session| assert_eq!(head_state(session), head));
}
