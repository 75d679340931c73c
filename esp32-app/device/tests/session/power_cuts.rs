//! The power fails at every flash operation of a save: the next session starts with everything from the save before, or everything from this one.

use core::ops::Range;

use torch_nano_device::{Request, Response, Session, Settings};

use crate::builder::Aligned;
use crate::nor::{Nor, Torn};
use crate::stream::{OPTIONS, ask, class, every_head, head_state, input, ram, session_with};

type Flash = Nor<512>;

/// Everything that a save holds, read by requests.
#[derive(Debug, PartialEq)]
struct Kept {
    state: Vec<u8>,
    names: Vec<String>,
    settings: Settings,
}

/// A save: its flash operations, and what it saved.
type Save = (Range<usize>, Kept);

fn kept<C: FnMut() -> u64>(session: &mut Session<'_, C, Flash>) -> Kept {
    let (classes, settings) = ask(session, Request::Info, |response| match response {
        Response::Info { classes, settings, .. } => (classes, settings),
        other => panic!("{other:?}"),
    });
    let mut name = |class| {
        ask(session, Request::ClassName { class }, |response| match response {
            Response::ClassName { name } => name.to_owned(),
            other => panic!("{other:?}"),
        })
    };
    let names = (0..classes as u16).map(&mut name).collect();
    Kept { state: head_state(session), names, settings }
}

/// The state of a device of `image` that starts with this flash, and whether it was restored from there.
fn after_start(image: &Aligned, flash: &Flash) -> (Kept, bool) {
    let mut ram = ram(image);
    let mut session = session_with(image, &mut ram, OPTIONS, flash.clone());
    let restored = ask(&mut session, Request::Info, |response| match response {
        Response::Info { restored, .. } => restored,
        other => panic!("{other:?}"),
    });
    (kept(&mut session), restored)
}

/// Random requests between two starts, by the seed: learning, classes, settings, saves on request and automatic ones. Ends early if the power
/// fails. Returns the flash and, if the power is not to fail, the saves.
fn live(image: &Aligned, flash: Flash, seed: u64, replace: bool) -> (Flash, Vec<Save>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut ram = ram(image);
    let cut = flash.cut.map(|(operation, _)| operation);
    let mut session = session_with(image, &mut ram, OPTIONS, flash);
    let mut saves = vec![];
    // Whether the power is still on.
    let mut request = |request: Request<'_>| {
        let before = session.device.flash().operations;
        ask(&mut session, request, |_| ());
        let after = session.device.flash().operations;
        if cut.is_none() && after > before {
            saves.push((before..after, kept(&mut session)));
        }
        cut.is_none_or(|cut| after <= cut)
    };
    let settings = Settings { rejection: random.u16(..=1 << 15), save_interval: random.u32(0..=3) };
    let sample = random.u64(..);
    let _power_is_on = request(Request::Configure { settings })
        // Only heads of sums add classes, and they have room for two.
        && (seed.is_multiple_of(2) || request(Request::Reset))
        && request(Request::AddClass { name: &format!("class {seed}") })
        && request(Request::Learn { label: class(0), input: &input(sample) })
        && request(Request::Learn { label: class(1), input: &input(sample ^ 1) })
        && request(Request::Train { first_epoch: 0, epochs: 2 })
        && request(Request::Commit)
        && request(Request::Save { replace });
    (session.device.flash().clone(), saves)
}

/// The flash after a power cut.
struct Cut<'s> {
    flash: Flash,
    /// What the interrupted save would have saved, and the save before it, if it is of the same run.
    new: &'s Kept,
    old: Option<&'s Kept>,
    /// Whether a page was being erased.
    erasing: bool,
    place: String,
}

/// Cuts the power at every flash operation of a run, in every way; `check` gets the flash. Returns the flash and the saves of an uncut run, and the
/// number of cuts.
fn cut_everywhere(
    image: &Aligned,
    flash: &Flash,
    seed: u64,
    replace: bool,
    mut check: impl FnMut(&Cut<'_>),
) -> (Flash, Vec<Save>, usize) {
    let (whole, saves) = live(image, flash.clone(), seed, replace);
    let (mut cuts, mut checked, mut erased) = (0, vec![], flash.erased.clone());
    for (number, (operations, new)) in saves.iter().enumerate() {
        let old = number.checked_sub(1).map(|before| &saves[before].1);
        for operation in operations.clone() {
            let mut erased_then = vec![];
            for torn in Torn::EACH {
                let mut cut = flash.clone();
                cut.cut = Some((operation, torn));
                cut.random.seed(seed << 32 | operation as u64);
                let (left, _) = live(image, cut, seed, replace);
                assert_eq!(left.operations, operation + 1, "seed {seed}: what it does depends on the cut");
                cuts += 1;
                erased_then.clone_from(&left.erased);
                // A complete operation leaves the same flash as a cut before the next one.
                if left.bytes != checked {
                    checked.clone_from(&left.bytes);
                    let erasing = left.erased != erased;
                    let place = format!("seed {seed}, operation {operation}, {torn:?}");
                    check(&Cut { flash: left.after_power_on(), new, old, erasing, place });
                }
            }
            erased = erased_then;
        }
    }
    (whole, saves, cuts)
}

/// Continues on such a flash: the device learns, saves, and starts with what it saved.
fn goes_on(image: &Aligned, flash: &Flash, seed: u64, replace: bool, place: &str) {
    let (flash, saves) = live(image, flash.clone(), seed, replace);
    let (_, last) = saves.last().unwrap_or_else(|| panic!("{place}: nothing was saved afterwards"));
    let (found, restored) = after_start(image, &flash);
    assert!(restored && found == *last, "{place}: what was saved afterwards is not there, but {found:?}");
}

#[test]
fn head_names_and_settings_are_all_of_the_old_save_or_all_of_the_new_one() {
    let (mut saves, mut cuts, mut new_ones) = (0, 0, 0);
    for (name, image) in every_head() {
        let mut flash = Flash::new(8, 1);
        // Numbers of saves that changed state and settings, and of those that also changed names.
        let (mut others, mut other_names) = (0, 0);
        for seed in 0..11 {
            let (start, started_with_saved) = after_start(&image, &flash);
            let mut random = fastrand::Rng::with_seed(seed);
            let mut goes_on_with = None;
            let (whole, life, number) = cut_everywhere(&image, &flash, seed, false, |cut| {
                let Cut { flash: left, new, old: before, erasing, place } = cut;
                let old = before.unwrap_or(&start);
                let (found, restored) = after_start(&image, left);
                let is_new = found == **new;
                assert!(is_new || found == *old, "{name}, {place}: {found:?}\nis neither\n{old:?}\nnor\n{new:?}");
                assert_eq!(restored, is_new || before.is_some() || started_with_saved, "{name}, {place}");
                new_ones += usize::from(is_new && found != *old);
                if *erasing || random.u8(..16) == 0 {
                    goes_on(&image, left, seed + 100, false, &format!("{name}, {place}"));
                    goes_on_with = Some(left.clone());
                }
            });
            cuts += number;
            saves += life.len();
            for (old, new) in
                [&start].into_iter().chain(life.iter().map(|(_, kept)| kept)).zip(life.iter().map(|(_, kept)| kept))
            {
                let other = new.state != old.state && new.settings != old.settings;
                others += usize::from(other);
                other_names += usize::from(other && new.names != old.names);
            }
            // Every second run starts on a flash after such a cut.
            flash = goes_on_with.filter(|_| seed.is_multiple_of(2)).unwrap_or(whole);
        }
        let names_change = matches!(name, "prototype" | "lda");
        assert!(others > 4 && (other_names > 2) == names_change, "{name}: {others}, {other_names}");
    }
    assert!(
        saves > 60 && cuts > 30_000 && new_ones > 60,
        "{saves} saves, {cuts} cuts, {new_ones} after which it was the new one"
    );
}

/// A flash with the head of another model, which a `Save` with `replace` replaces.
#[test]
fn another_models_head_stays_whole_until_it_is_replaced_whole() {
    let heads = every_head();
    let (mut cuts, mut replaced) = (0, 0);
    for (number, (name, image)) in heads.iter().enumerate() {
        for (other_name, other) in heads.iter().filter(|(other, _)| other != name) {
            let mut flash = Flash::new(8, 2);
            for seed in 0..=number as u64 {
                flash = live(other, flash, seed, false).0;
            }
            let others = after_start(other, &flash);
            assert!(others.1);
            let initial = after_start(image, &flash);
            assert!(!initial.1);
            let mut random = fastrand::Rng::with_seed(number as u64);
            let (_, _, number) = cut_everywhere(image, &flash, 50, true, |cut| {
                let Cut { flash: left, new, old: before, erasing, place } = cut;
                let place = format!("{name} for {other_name}, {place}");
                let (own, restored) = after_start(image, left);
                if restored {
                    assert!(own == **new || Some(&own) == *before, "{place}: {own:?}");
                    assert!(!after_start(other, left).1, "{place}: both are there");
                    replaced += 1;
                } else {
                    assert!(before.is_none() && own == initial.0, "{place}: {own:?}");
                    assert!(after_start(other, left) == others, "{place}: the other model's head is gone");
                }
                if *erasing || random.u8(..16) == 0 {
                    goes_on(image, left, 51, true, &place);
                }
            });
            cuts += number;
        }
    }
    assert!(cuts > 4_000 && replaced >= 12, "{cuts} cuts, {replaced} after which the own head was there");
}
