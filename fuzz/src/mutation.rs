//! Mutations of inputs that are a list of steps.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use torch_nano_device::frame;

/// The engine's own mutation of the first bytes of a buffer, in place; returns their new number.
pub type Mutate<'m> = &'m mut dyn FnMut(&mut [u8], usize, usize) -> usize;

/// Encodes a setup or a step.
pub(crate) fn encode(part: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(part).expect("a Vec takes all")
}

/// Usually changes the steps after the setup by `change`, else any bytes; returns the new number of bytes in `data`.
pub(crate) fn after_setup<Setup: DeserializeOwned>(
    data: &mut [u8],
    size: usize,
    capacity: usize,
    seed: u32,
    engine: Mutate<'_>,
    change: impl FnOnce(&[u8], &mut fastrand::Rng, Mutate<'_>) -> Vec<u8>,
) -> usize {
    let mut random = fastrand::Rng::with_seed(seed.into());
    match frame::parse::<Setup>(&data[..size]) {
        Some((_, steps)) if random.u8(..8) > 0 => {
            let (setup, _) = data[..size].split_at(size - steps.len());
            let new = [setup, &change(steps, &mut random, engine)].concat();
            replace(data, size, capacity, &new)
        }
        _ => engine(data, size, capacity),
    }
}

/// The end of each step in `bytes`, up to the first invalid one.
pub(crate) fn ends<'b, Step: Deserialize<'b>>(bytes: &'b [u8]) -> Vec<usize> {
    let mut ends = vec![];
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some((_, after)) = frame::parse::<Step>(rest) else { break };
        if after.len() == rest.len() {
            break;
        }
        ends.push(bytes.len() - after.len());
        rest = after;
    }
    ends
}

/// `bytes` with one step dropped, repeated, moved, changed by the engine, or taken from `pool`.
pub(crate) fn steps<'b, Step: Deserialize<'b>>(
    bytes: &'b [u8],
    pool: &[Vec<u8>],
    random: &mut fastrand::Rng,
    engine: Mutate<'_>,
) -> Vec<u8> {
    let ends = ends::<Step>(bytes);
    let starts: Vec<usize> = [0].into_iter().chain(ends.iter().copied()).collect();
    let mut steps: Vec<Vec<u8>> = starts.iter().zip(&ends).map(|(&start, &end)| bytes[start..end].to_vec()).collect();
    let place = random.usize(0..=steps.len());
    let other = random.choice(0..steps.len());
    match (random.u8(..8), other) {
        (0, Some(other)) => drop(steps.remove(other)),
        (1, Some(other)) => steps.insert(place, steps[other].clone()),
        (2, Some(other)) => {
            let step = steps.remove(other);
            steps.insert(random.usize(0..=steps.len()), step);
        }
        (3 | 4, Some(other)) => steps[other] = engine_mutation(&steps[other], 64, engine),
        _ => {
            if let Some(step) = random.choice(pool) {
                steps.insert(place, step.clone());
            }
        }
    }
    steps.concat()
}

/// `bytes` mutated by the engine, which may add up to `growth` bytes.
pub(crate) fn engine_mutation(bytes: &[u8], growth: usize, engine: Mutate<'_>) -> Vec<u8> {
    let mut buffer = bytes.to_vec();
    buffer.resize(bytes.len() + growth, 0);
    let capacity = buffer.len();
    let length = engine(&mut buffer, bytes.len(), capacity);
    buffer.truncate(length);
    buffer
}

/// Puts `new` into the engine's buffer if it fits; returns the new number of bytes.
pub(crate) fn replace(data: &mut [u8], size: usize, capacity: usize, new: &[u8]) -> usize {
    match data.get_mut(..new.len()) {
        Some(place) if new.len() <= capacity => {
            place.copy_from_slice(new);
            new.len()
        }
        _ => size,
    }
}
