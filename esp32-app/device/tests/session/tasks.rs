//! A task that senses and a task that serves a PC, on one device behind a mutex, in every order.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Waker};

use embassy_futures::yield_now;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;
use nano_core::image::Image;
use nano_core::train::Head;
use torch_nano_device::{
    Failure, MemoryFlash, Options, Progress, Request, Response, Sensed, Sensing, SensingOptions, Session, Settings,
    Smoothing, frame,
};

use crate::builder::{Aligned, head_net};
use crate::local::{Half, Stream};
use crate::stream::{OPTIONS, encoded, input, ram, response, session, session_with, signed};

const SAMPLES: usize = 400;
const REQUESTS: u64 = 60;

/// What a run ends with: what was sensed and trained, the head, and the flash.
type Seen = (Vec<(Option<Sensed>, Option<Progress>)>, Vec<u8>, Vec<u8>);

/// Polls the futures in a random order until all are done.
fn run_in_any_order(seed: u64, mut futures: Vec<Pin<&mut dyn Future<Output = ()>>>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut context = Context::from_waker(Waker::noop());
    while !futures.is_empty() {
        let place = random.usize(..futures.len());
        if futures[place].as_mut().poll(&mut context).is_ready() {
            let _done = futures.swap_remove(place);
        }
    }
}

/// Runs both tasks; also returns how many of the PC's requests in parts the sensing task has cut in two, and how many not.
fn run(image: &Aligned, seed: u64, asks: bool) -> (Seen, [u32; 2]) {
    let view = Image::new(image.bytes()).unwrap();
    let mut memory = ram(image);
    let settings = Settings { rejection: 12_000, save_interval: 1 };
    let flash = MemoryFlash(vec![0xff; 16 * 4096]);
    let (mut window, mut kept) = (vec![0; view.input(0).len()], vec![0; view.output(0).len()]);
    let Session { mut device, mut link } = session_with(image, &mut memory, Options { settings, ..OPTIONS }, flash);
    let smoothing = Smoothing::new(3, 2).unwrap();
    let options = SensingOptions { sample: 2, hop: 2, smoothing, epochs: 80, pause: 3, slice: 1 << 8 };
    let mut sensing = Sensing::new(&mut device, &mut window, &mut kept, options).unwrap();
    let device = Mutex::<NoopRawMutex, _>::new(device);
    let (to_device, to_pc, closed) = (Half::new(), Half::new(), Cell::new(!asks));
    let mut stream = Stream { read: &to_device, write: &to_pc, closed: &closed };
    let (mut seen, mut parts) = (vec![], [0; 2]);

    let sensor = async {
        let mut random = fastrand::Rng::with_seed(seed);
        for step in 0..SAMPLES {
            let sample = [0; 2].map(|_| (random.f32() - 0.5) * 20.0);
            let sensed = sensing.sense(&mut *device.lock().await, &sample).unwrap();
            // A PC may run another input between a window, its label and a slice.
            yield_now().await;
            if sensed.is_some() && step / 50 % 2 == 0 && random.bool() {
                device.lock().await.label(random.u16(..3)).unwrap();
                yield_now().await;
            }
            let progress = sensing.work(&mut *device.lock().await).unwrap();
            let timeless = |sensed| Sensed { ticks: 0, ..sensed };
            seen.push((sensed.map(timeless), progress.map(|progress| Progress { ticks: 0, ..progress })));
            yield_now().await;
        }
    };
    let ask = async |request: Request<'_>| {
        let mut sent = &encoded(request)[..];
        while !sent.is_empty() {
            let count = to_device.write(sent).await;
            sent = &sent[count..];
        }
        let mut answer = vec![];
        while answer.pop_if(|last| *last == frame::END).is_none() {
            let mut chunk = [0; 5];
            let count = to_pc.read(&mut chunk).await;
            answer.extend_from_slice(&chunk[..count]);
        }
        answer
    };
    let pc = async {
        for number in 0..if asks { REQUESTS } else { 0 } {
            let sample = input(number);
            let (first, rest) = sample.split_at(sample.len() / 2);
            match response(&mut ask(Request::Input { offset: 0, bytes: first }).await) {
                Response::Received { .. } => {}
                other => panic!("seed {seed}: {other:?}"),
            }
            match response(&mut ask(Request::Predict { input: rest }).await) {
                Response::Refused(Failure::Input { .. }) => parts[0] += 1,
                Response::Prediction { output, .. } => {
                    assert_eq!(signed(output), features(image, &sample), "seed {seed}, request {number}");
                    parts[1] += 1;
                }
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        closed.set(true);
    };
    let serve = async { link.serve_async(&device, &mut stream).await.unwrap() };
    run_in_any_order(seed, vec![pin!(sensor), pin!(pc), pin!(serve)]);
    let device = device.into_inner();
    let state = device.head().unwrap().state().to_vec();
    ((seen, state, device.flash().0.clone()), parts)
}

/// What the model makes of an input.
fn features(image: &Aligned, sample: &[u8]) -> Vec<i8> {
    let mut memory = ram(image);
    session(image, &mut memory).device.features(&signed(sample)[..]).unwrap().output.to_vec()
}

#[test]
fn tasks_on_one_device_never_see_half_a_step() {
    let image = head_net().image();
    let mut parts = [0; 2];
    for seed in 0..60 {
        let (alone, _) = run(&image, seed, false);
        assert!(alone.0.iter().filter(|(_, progress)| progress.is_some()).count() > 20, "seed {seed}: hardly trained");
        let (beside, cut) = run(&image, seed, true);
        assert!(alone == beside, "seed {seed}: a PC has changed what is sensed or learnt");
        parts = [0, 1].map(|index| parts[index] + cut[index]);
    }
    assert!(parts.iter().all(|&count| count > 300), "{parts:?}: cut in two, and whole");
}
