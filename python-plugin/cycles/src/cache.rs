//! The cache between the core and the flash.

/// Tenths of a cycle: the costs of the flash have one decimal.
pub type Time = u64;

/// How long a line takes to arrive from the flash, word by word in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlashCosts {
    /// From the miss to the request of the line.
    pub request: Time,
    /// From the request to its first word.
    pub first_word: Time,
    /// From a word to the next one.
    pub next_word: Time,
}

/// The size and shape of a cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    /// Of all lines together.
    pub bytes: u32,
    pub ways: u32,
    /// Bytes of a line: whole words.
    pub line: u32,
}

impl Geometry {
    /// Whether the lines make up whole sets.
    pub fn is_valid(&self) -> bool {
        let set = self.ways.checked_mul(self.line).filter(|&bytes| bytes > 0);
        self.line.is_multiple_of(4) && self.bytes > 0 && set.is_some_and(|bytes| self.bytes.is_multiple_of(bytes))
    }

    fn sets(&self) -> u32 {
        self.bytes / self.ways / self.line
    }
}

/// A set-associative cache that replaces the oldest line of a set (FIFO: a hit changes nothing) and loads one line at a time, without prefetch.
#[derive(Clone)]
pub struct Cache {
    geometry: Geometry,
    costs: FlashCosts,
    /// The numbers of the lines held, set by set.
    held: Vec<Option<u32>>,
    /// The way of each set that is replaced next.
    oldest: Vec<u32>,
    /// The line that arrived last or is arriving, and when it was requested.
    latest: Option<u32>,
    requested: Time,
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Read {
    /// When the word is there; not before the read.
    pub at: Time,
    pub missed: bool,
}

impl Cache {
    /// An empty cache.
    pub fn new(geometry: Geometry, costs: FlashCosts) -> Self {
        let (sets, ways) = (geometry.sets() as usize, geometry.ways as usize);
        Self { geometry, costs, held: vec![None; sets * ways], oldest: vec![0; sets], latest: None, requested: 0 }
    }

    /// The number of the line that holds an address.
    pub fn line(&self, address: u32) -> u32 {
        address / self.geometry.line
    }

    /// Reads the word at an address, and loads its line first if it is not held.
    pub fn read(&mut self, address: u32, now: Time) -> Read {
        let line = self.line(address);
        let (set, ways) = ((line % self.geometry.sets()) as usize, self.geometry.ways);
        let first = set * ways as usize;
        let missed = !self.held[first..][..ways as usize].contains(&Some(line));
        if missed {
            let oldest = &mut self.oldest[set];
            self.held[first + *oldest as usize] = Some(line);
            *oldest = (*oldest + 1) % ways;
            // The flash sends one line at a time.
            self.requested = now.max(self.idle_from());
            self.latest = Some(line);
        }
        let arrives = if self.latest == Some(line) { self.arrival(address % self.geometry.line / 4) } else { now };
        Read { at: arrives.max(now), missed }
    }

    /// When the latest line has arrived as a whole.
    pub fn idle_from(&self) -> Time {
        if self.latest.is_none() { 0 } else { self.arrival(self.geometry.line / 4 - 1) }
    }

    /// When a word of the latest line arrives.
    fn arrival(&self, word: u32) -> Time {
        let FlashCosts { request, first_word, next_word } = self.costs;
        self.requested + request + first_word + Time::from(word) * next_word
    }
}
