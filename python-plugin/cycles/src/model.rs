//! The cycle model of a core in front of a flash cache.

use std::fmt;
use std::ops::Range;

use crate::cache::{Cache, FlashCosts, Geometry, Time};
use crate::instruction::{Instruction, Kind};

/// One cycle.
const CYCLE: Time = 10;

/// What instructions take in addition to their cycle, in tenths of a cycle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// An instruction that reads the register which the instruction before it has loaded.
    pub load_use: Time,
    /// A branch that is taken.
    pub taken_branch: Time,
    /// A jump, call or return.
    pub jump: Time,
    /// A branch or jump to an instruction of four bytes that is not aligned to four.
    pub unaligned_target: Time,
    /// A multiplication that returns the high word.
    pub high_multiply: Time,
    /// A division or remainder.
    pub divide: Time,
}

/// A chip: its costs, and what it reads through the cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Chip {
    pub costs: Costs,
    pub cache: Geometry,
    pub flash_costs: FlashCosts,
    /// The addresses of code and constants in flash; all others are RAM, which never waits.
    pub flash: Vec<Range<u32>>,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    pub instructions: u64,
    /// Lines of constants that were not in the cache.
    pub data_lines: u64,
    /// Lines of code that were not in the cache.
    pub code_lines: u64,
    pub load_use_stalls: u64,
    pub taken_branches: u64,
    pub high_multiplies: u64,
    pub divides: u64,
    time: Time,
    waited: Time,
}

impl Counts {
    /// The names of the columns in which a `Counts` is displayed.
    pub const COLUMNS: &str =
        "instructions,cycles,data_lines,code_lines,load_use_stalls,taken_branches,high_multiplies,divides,flash_cycles";

    /// Whole cycles.
    pub fn cycles(&self) -> u64 {
        self.time / CYCLE
    }

    /// Whole cycles spent waiting for the flash.
    pub fn flash_cycles(&self) -> u64 {
        self.waited / CYCLE
    }
}

/// One row of the CSV file.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instructions, data_lines, code_lines, load_use_stalls, .. } = self;
        let Self { taken_branches, high_multiplies, divides, .. } = self;
        write!(f, "{instructions},{},{data_lines},{code_lines},{load_use_stalls},", self.cycles())?;
        write!(f, "{taken_branches},{high_multiplies},{divides},{}", self.flash_cycles())
    }
}

/// The state of a chip between two instructions.
#[derive(Clone)]
pub struct Model {
    costs: Costs,
    flash: Vec<Range<u32>>,
    cache: Cache,
    counts: Counts,
    previous: Option<Instruction>,
    /// A line of code that is in the cache as a whole, as nothing was loaded since: its instructions do not wait.
    ready: Option<u32>,
}

impl Model {
    /// A chip that has executed nothing; its cache is empty.
    pub fn new(chip: Chip) -> Self {
        let cache = Cache::new(chip.cache, chip.flash_costs);
        let counts = Counts::default();
        Self { costs: chip.costs, flash: chip.flash, cache, counts, previous: None, ready: None }
    }

    /// What was counted so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Fetches and executes an instruction. [`Model::load`] follows for each word that it loads.
    pub fn execute(&mut self, instruction: &Instruction) {
        if let Some(previous) = self.previous {
            self.follow(&previous, instruction);
        }
        self.fetch(instruction);
        let more = match instruction.kind {
            Kind::HighMultiply => {
                self.counts.high_multiplies += 1;
                self.costs.high_multiply
            }
            Kind::Divide => {
                self.counts.divides += 1;
                self.costs.divide
            }
            Kind::Plain | Kind::Load { .. } | Kind::Branch | Kind::Jump | Kind::ReadCounter => 0,
        };
        self.counts.time += CYCLE + more;
        self.counts.instructions += 1;
        self.previous = Some(*instruction);
    }

    /// Reads data for the instruction that was executed last.
    pub fn load(&mut self, address: u32) {
        if self.is_flash(address) {
            self.counts.data_lines += u64::from(self.read(address));
        }
    }

    /// Adds what an instruction takes because of the one before it.
    fn follow(&mut self, previous: &Instruction, instruction: &Instruction) {
        let sequential = instruction.address == previous.address + previous.size;
        match previous.kind {
            Kind::Load { destination } if instruction.reads >> destination & 1 == 1 => {
                self.counts.load_use_stalls += 1;
                self.counts.time += self.costs.load_use;
            }
            Kind::Branch if !sequential => {
                self.counts.taken_branches += 1;
                self.counts.time += self.costs.taken_branch;
            }
            Kind::Jump => self.counts.time += self.costs.jump,
            _ => {}
        }
        if !sequential && instruction.size == 4 && !instruction.address.is_multiple_of(4) {
            self.counts.time += self.costs.unaligned_target;
        }
    }

    fn fetch(&mut self, instruction: &Instruction) {
        let (first, last) = (instruction.address, instruction.last_byte());
        let line = self.cache.line(last);
        if self.ready == Some(line) && self.cache.line(first) == line || !self.is_flash(first) {
            return;
        }
        self.counts.code_lines += u64::from(self.read(first));
        self.counts.code_lines += u64::from(self.read(last));
        if self.counts.time >= self.cache.idle_from() {
            self.ready = Some(line);
        }
    }

    /// Waits for a word of the flash; returns whether its line was not in the cache.
    fn read(&mut self, address: u32) -> bool {
        let read = self.cache.read(address, self.counts.time);
        self.counts.waited += read.at - self.counts.time;
        self.counts.time = read.at;
        if read.missed {
            // The line of code may be the one that was replaced.
            self.ready = None;
        }
        read.missed
    }

    fn is_flash(&self, address: u32) -> bool {
        self.flash.iter().any(|range| range.contains(&address))
    }
}
