//! Runs of many samples: blocks of them on threads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;

use nano_core::Arenas;
use rayon::{ThreadPool, ThreadPoolBuilder};
use zerocopy::{FromBytes, IntoBytes};

use crate::model::SharedImage;

/// Bytes of the arenas of a block of samples: half of a core's second-level cache, or less, of most processors.
const BLOCK: usize = 256 * 1024;
/// The most samples of a block.
const MOST_SAMPLES: usize = 64;

/// Arrays of inputs, and of outputs to fill, with one row per sample.
pub(crate) struct Batch<'b, I, O> {
    pub(crate) samples: usize,
    pub(crate) inputs: Vec<&'b [I]>,
    pub(crate) outputs: Vec<&'b mut [O]>,
}

/// The next samples of a batch: for each output their rows.
struct Block<'b, O> {
    first: usize,
    samples: usize,
    rows: Vec<Vec<&'b mut [O]>>,
}

impl<'b, I: Sync, O: Send> Batch<'b, I, O> {
    /// Runs all samples: fills each input by `fill`, calls `after(node, rows, arenas)` after each node of a block of samples, and `finish(rows, arenas)` after
    /// the last. Uses at most `threads` threads, by default one per core.
    pub(crate) fn run(
        self,
        image: &SharedImage,
        threads: Option<usize>,
        fill: impl Fn(usize, &[I], &mut [i8]) + Sync,
        after: impl Fn(usize, &mut [Vec<&'b mut [O]>], &Arenas<'_>) + Sync,
        finish: impl Fn(&mut [Vec<&'b mut [O]>], &Arenas<'_>) + Sync,
    ) {
        let Batch { samples, inputs, outputs } = self;
        if samples == 0 {
            return;
        }
        let checked = image.checked();
        // Fast path: querying the number of cores takes longer than many models.
        let threads = match samples {
            1 => 1,
            _ => threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).clamp(1, samples),
        };
        let fitting = BLOCK / Arenas::length(checked, 1).max(1);
        let per_block = fitting.clamp(1, MOST_SAMPLES).min(samples.div_ceil(threads));
        let blocks = blocks(samples, per_block, outputs);
        let run = |mut block: Block<'b, O>, memory: &mut Vec<u32>, scratch: &mut Vec<u8>| {
            memory.resize(Arenas::length(checked, per_block).div_ceil(4), 0);
            let memory = <[i8]>::mut_from_bytes(memory.as_mut_bytes()).expect("bytes lie anywhere");
            let mut arenas = Arenas::new(*checked, memory, block.samples).expect("the memory has the arenas' length");
            for (index, input) in inputs.iter().enumerate() {
                let length = input.len() / samples;
                for sample in 0..block.samples {
                    let given = &input[(block.first + sample) * length..][..length];
                    fill(index, given, arenas.input(sample, index));
                }
            }
            image.host().run(&mut arenas, scratch, |node, arenas| after(node, &mut block.rows, arenas));
            finish(&mut block.rows, &arenas);
        };
        if threads == 1 {
            let (mut memory, mut scratch) = (Vec::new(), Vec::new());
            blocks.into_iter().for_each(|block| run(block, &mut memory, &mut scratch));
            return;
        }
        let blocks = Mutex::new(blocks.into_iter());
        let work = || {
            let (mut memory, mut scratch) = (Vec::new(), Vec::new());
            // The lock is held while a block is taken.
            while let Some(block) = next(&blocks) {
                run(block, &mut memory, &mut scratch);
            }
        };
        // The calling thread works too: it need not be woken.
        pool(threads - 1).in_place_scope(|scope| {
            (1..threads).for_each(|_| scope.spawn(|_| work()));
            work();
        });
    }
}

fn next<T>(queue: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    queue.lock().expect("nobody panics with the lock").next()
}

/// The rows of outputs, in blocks of samples.
fn blocks<O>(samples: usize, per_block: usize, outputs: Vec<&mut [O]>) -> Vec<Block<'_, O>> {
    let firsts = (0..samples).step_by(per_block);
    let mut blocks: Vec<_> = firsts
        .map(|first| Block { first, samples: per_block.min(samples - first), rows: Vec::with_capacity(outputs.len()) })
        .collect();
    for output in outputs {
        let length = output.len() / samples;
        let mut rows = output.chunks_mut(length);
        for block in &mut blocks {
            block.rows.push(rows.by_ref().take(block.samples).collect());
        }
    }
    blocks
}

/// A pool with so many threads, started once.
fn pool(threads: usize) -> Arc<ThreadPool> {
    static POOLS: Mutex<BTreeMap<usize, Arc<ThreadPool>>> = Mutex::new(BTreeMap::new());
    let mut pools = POOLS.lock().expect("nobody panics with the lock");
    let make = || {
        let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|index| format!("nano {index}")).build();
        Arc::new(pool.expect("threads can be started"))
    };
    pools.entry(threads).or_insert_with(make).clone()
}
