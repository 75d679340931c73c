//! The time that a chip waits for its flash: which lines of code and constants miss its cache, and what each of them costs.

use alloc::vec::Vec;
use core::ops::Range;

use super::cost::Cost;
use super::layer::Packed;
use crate::image::FlashTiming;

/// Bytes of a word of a cache line.
const WORD: u64 = 4;

impl FlashTiming {
    /// Bytes of constants that stay in the cache: three quarters of it, as code needs the rest.
    pub(super) fn stays(self) -> usize {
        self.cache / 4 * 3
    }

    /// Cycles of one run of a layer, by whatever layers it is surrounded: its code is read from flash once, and its loops again with each cache full of constants.
    pub(super) fn cycles(self, cost: Cost, packed: &Packed, code: CodeUse) -> u64 {
        let read = self.read(packed) as u64;
        let of_loops = u64::from(code.looped) * read / self.cache.max(1) as u64;
        let of_code = (u64::from(code.run) + of_loops) * u64::from(self.cycles_per_line);
        cost.cycles().saturating_add(of_code).saturating_add(self.wait(cost, packed, code))
    }

    /// The part of [`FlashTiming::cycles`] that is waiting for constants.
    pub(super) fn wait(self, cost: Cost, packed: &Packed, code: CodeUse) -> u64 {
        let read = self.read(packed) as u64;
        read.div_ceil(self.line.max(1) as u64).saturating_mul(self.of_constant_line(cost, read, code))
    }

    /// Bytes of constants that one run reads from flash: those that stay in the cache once, others as often as the kernel reads them.
    fn read(self, packed: &Packed) -> usize {
        let size = packed.length();
        packed.read.filter(|_| size > self.stays()).unwrap_or(size)
    }

    /// What a line of constants costs: the time to its first word, and for the words after it what the transfer is slower than the kernel. A kernel that reads a
    /// burst of words at once waits for all of them; one that computes after each word, as many cycles less as it computes.
    fn of_constant_line(self, cost: Cost, read: u64, code: CodeUse) -> u64 {
        let others = (self.line as u64 / WORD).saturating_sub(1);
        let first = u64::from(self.cycles_to_first_word);
        let transfer = u64::from(self.cycles_per_line).saturating_sub(first);
        let steadily = transfer.saturating_sub(cost.cycles().saturating_mul(WORD * others) / read.max(1));
        let in_bursts = transfer * others.min(u64::from(code.burst).saturating_sub(1)) / others.max(1);
        first + steadily.max(in_bursts)
    }
}

/// How a kernel uses the flash cache, in lines of 32 bytes.
#[derive(Clone, Copy)]
pub(super) struct CodeUse {
    /// Lines of code that one run executes.
    pub(super) run: u32,
    /// Those of the loops that read constants.
    looped: u32,
    /// Words of constants that it reads at once.
    burst: u32,
}

impl CodeUse {
    /// That of a kernel, as the cycle model counts it on the emulated board; of kernels that no measured model has, the median.
    pub(super) fn of(kernel: &str) -> CodeUse {
        let [run, looped, burst] = match kernel {
            "average_pool2d" => [58, 10, 4],
            "conv2d" => [150, 60, 3],
            "conv2d_add_pairs" => [190, 60, 4],
            "conv2d_add_winograd4" => [190, 120, 7],
            "conv2d_pairs" => [176, 100, 2],
            "conv2d_winograd4" => [170, 120, 7],
            "conv2d_winograd4_transformed" => [190, 60, 7],
            "depthwise_conv2d_lines" => [140, 40, 4],
            "fully_connected" => [58, 26, 1],
            "fully_connected_pairs" => [58, 26, 1],
            "max_pool2d" => [38, 10, 4],
            "table" => [20, 5, 2],
            _ => [100, 40, 4],
        };
        CodeUse { run, looped, burst }
    }
}

/// The flash cache over the layers of a model: sets of `ways` lines, of which a miss replaces the one that came first.
///
/// It sees what a run reads: each layer's records, the code of its kernel, its constants in order, and again and again the code of the loop that reads them. Where
/// the linker puts the code is not known: it is scattered.
#[derive(Clone)]
pub(super) struct FlashCache {
    timing: FlashTiming,
    /// Of each set the lines, the latest last.
    sets: Vec<Vec<u32>>,
}

/// After as many lines of constants a kernel's loop begins again.
const LOOP: usize = 4;
/// Lines of the program that runs between two runs of the model, the head's among them.
const PROGRAM: Range<u32> = (1 << 22)..(1 << 22) + 40;
/// The first line of all records and of all constants; code begins with line 0.
const RECORD: u32 = 1 << 20;
const CONSTANT: u32 = 1 << 21;

/// Where a layer's code and constants are.
pub(super) struct Places {
    /// Bytes of its records: its node and its outputs.
    pub(super) records: Range<usize>,
    /// Line of its kernel's code.
    pub(super) code: u32,
    /// Byte of its constants; None if they are in RAM.
    pub(super) constants: Option<usize>,
}

impl FlashCache {
    /// An empty cache; `None` without the chip's timing.
    pub(super) fn new(timing: FlashTiming) -> Option<Self> {
        let sets = timing.cache / timing.line.max(1) / timing.ways.max(1);
        (sets > 0).then(|| FlashCache { timing, sets: alloc::vec![Vec::new(); sets] })
    }

    /// Runs a layer; returns the cycles that it waits.
    pub(super) fn wait(&mut self, cost: Cost, packed: &Packed, code: CodeUse, places: &Places) -> u64 {
        let line = self.timing.line.max(1);
        let records = places.records.start / line..places.records.end.div_ceil(line);
        let mut of_code = self.missing(records.map(|line| RECORD + line as u32));
        of_code += self.missing((0..code.run).map(|line| scattered(places.code + line)));
        let looped = (code.run - code.looped) / 2..(code.run + code.looped) / 2;
        let (mut of_constants, size) = (0, packed.length());
        let read = self.timing.read(packed).max(size);
        if let Some(first) = places.constants.filter(|_| size > 0) {
            let lines: Vec<u32> =
                (first / line..(first + size).div_ceil(line)).map(|line| CONSTANT + line as u32).collect();
            for _ in 0..read.div_ceil(size) {
                for lines in lines.chunks(LOOP) {
                    of_constants += self.missing(lines.iter().copied());
                    of_code += self.missing(looped.clone().map(|line| scattered(places.code + line)));
                }
            }
        }
        let of_line = self.timing.of_constant_line(cost, read as u64, code);
        of_code * u64::from(self.timing.cycles_per_line) + of_constants * of_line
    }

    /// Reads what the program reads between two runs.
    pub(super) fn end_of_run(&mut self) {
        self.missing(PROGRAM);
    }

    /// Reads lines; returns the number of those that were missing.
    fn missing(&mut self, lines: impl Iterator<Item = u32>) -> u64 {
        let mut missing = 0;
        for line in lines {
            let index = line as usize % self.sets.len();
            let set = &mut self.sets[index];
            if !set.contains(&line) {
                if set.len() == self.timing.ways {
                    set.remove(0);
                }
                set.push(line);
                missing += 1;
            }
        }
        missing
    }
}

/// A line of code in another place: functions lie far apart, so that some sets have more lines than ways. Short runs of code stay together.
fn scattered(line: u32) -> u32 {
    const RUN: u32 = 4;
    // Knuth's multiplicative hash.
    let place = (line / RUN).wrapping_mul(2_654_435_761) >> 14;
    place * RUN + line % RUN
}
