//! The processor: which vector instructions it has, and how the host's kernels use them.

use crate::kernels::Channel;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// The vector instructions that the host's kernels are written with.
///
/// A vector has [`Instructions::LANES`] words of 32 bits. A word is a sum, or a group of inputs, or of weights, that are multiplied and added up by one
/// instruction.
///
/// # Safety
/// All functions need a processor that has the instructions: they are called inside [`Instructions::run`] alone.
pub(crate) trait Instructions: Copy + Send + Sync + 'static {
    /// A vector.
    type Vector: Copy;
    /// Words of a vector.
    const LANES: usize;
    /// Inputs, and weights, in a word.
    const GROUP: usize;
    /// Is added to an input before it is multiplied; a bias contains what this adds to the sums.
    const RAISE: i32;

    /// Runs a task with these instructions.
    unsafe fn run<T: Task>(task: T) -> T::Output;

    /// A word of the weights `weight(0)`, `weight(1)` and so on.
    fn word(weight: impl Fn(usize) -> i8) -> i32 {
        let (bits, mask) = if Self::GROUP == 4 { (8, 0xff) } else { (16, 0xffff) };
        (0..Self::GROUP).fold(0, |word, index| word | (i32::from(weight(index)) & mask) << (bits * index))
    }

    /// What a channel's sum begins with, its mantissa, addend and shift.
    fn record(channel: &Channel, weights: &[i8]) -> [i32; 4] {
        let raised = Self::RAISE.wrapping_mul(weights.iter().copied().map(i32::from).sum());
        let mantissa = (channel.multiplier as u32 >> 1) as i32;
        [channel.bias.wrapping_sub(raised), mantissa, channel.addend, channel.shift]
    }

    /// Writes elements as they are multiplied.
    ///
    /// # Panics
    /// If there is no room for them.
    unsafe fn convert(elements: &[i8], to: &mut [u8]);

    /// The vector at `words`, which need not be aligned.
    unsafe fn load(words: *const i32) -> Self::Vector;

    /// A vector of the word at `word`, which need not be aligned.
    unsafe fn splat(word: *const u8) -> Self::Vector;

    /// `sums` and the products of each lane's group of inputs and of weights.
    unsafe fn multiply_add(sums: Self::Vector, inputs: Self::Vector, weights: Self::Vector) -> Self::Vector;

    /// Vectors of words from as many rows of inputs, of which the first [`Instructions::GROUP`] count: word w of vector k are the inputs at place
    /// [`Instructions::place`] of all rows.
    unsafe fn interleave(rows: [*const u8; 4]) -> [Self::Vector; 4];

    /// See [`Instructions::interleave`].
    fn place(vector: usize, word: usize) -> usize {
        4 * (Self::GROUP * (word / 4) + vector) + word % 4
    }

    /// A vector of elements as sums.
    unsafe fn widen(elements: *const i8) -> Self::Vector;

    /// The differences, times `2^shift`.
    unsafe fn raise(minuend: Self::Vector, subtrahend: Self::Vector, shift: u32) -> Self::Vector;

    /// Sums, word by word.
    unsafe fn add(first: Self::Vector, second: Self::Vector) -> Self::Vector;

    /// The one-pass form of sums, without a clamp.
    unsafe fn outputs(sums: Self::Vector, channels: &Lanes<Self>) -> Self::Vector;

    /// Requantizes sums in the one-pass form, and writes the first `count` elements, clamped.
    unsafe fn requantize(sums: Self::Vector, channels: &Lanes<Self>, clamp: (i8, i8), output: *mut i8, count: usize);

    /// [`Instructions::requantize`] of interleaved sums.
    unsafe fn requantize_interleaved(
        sums: [Self::Vector; 4],
        channels: &[Lanes<Self>; 4],
        clamp: (i8, i8),
        output: *mut i8,
        count: usize,
    );

    /// Writes a vector.
    unsafe fn store(vector: Self::Vector, words: *mut i32);
}

/// The one-pass requantization ([`Channel`]) of a vector's channels.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<I: Instructions> {
    /// The mantissa: half of the form's multiplier.
    pub(crate) mantissa: I::Vector,
    pub(crate) addend: I::Vector,
    pub(crate) shift: I::Vector,
}

impl<I: Instructions> Lanes<I> {
    /// The same multiplier in all lanes.
    ///
    /// # Safety
    /// As of [`Instructions`].
    #[inline(always)]
    pub(crate) unsafe fn of(channel: &Channel) -> Self {
        let [_, mantissa, addend, shift] = I::record(channel, &[]).map(|number| [number; MOST_LANES]);
        // SAFETY: the caller's.
        unsafe { Self::load([&mantissa, &addend, &shift]) }
    }

    /// From the lanes' mantissas, addends and shifts.
    ///
    /// # Safety
    /// As of [`Instructions`].
    #[inline(always)]
    pub(crate) unsafe fn load([mantissas, addends, shifts]: [&[i32; MOST_LANES]; 3]) -> Self {
        // SAFETY: the caller's; vectors have at most that many lanes.
        unsafe {
            Lanes {
                mantissa: I::load(mantissas.as_ptr()),
                addend: I::load(addends.as_ptr()),
                shift: I::load(shifts.as_ptr()),
            }
        }
    }
}

/// The most lanes of a vector.
pub(crate) const MOST_LANES: usize = 16;

/// What runs with the vector instructions of a processor.
pub(crate) trait Task {
    type Output;

    /// Inlined into a function that has the instructions enabled.
    unsafe fn run<I: Instructions>(self) -> Self::Output;
}

/// Vector instructions that host kernels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Processor {
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Processor {
    /// Those that this machine has, the best ones first.
    ///
    /// ```
    /// use nano_core::Processor;
    /// assert!(Processor::all().all(|processor| !processor.name().is_empty()));
    /// ```
    pub fn all() -> impl Iterator<Item = Processor> {
        #[cfg(target_arch = "x86_64")]
        let all = [Processor::Avx512, Processor::Avx2];
        #[cfg(not(target_arch = "x86_64"))]
        let all = [];
        all.into_iter().filter(|processor: &Processor| processor.is_here())
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Processor::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Processor::Avx2 => "avx2",
        }
    }

    fn is_here(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Processor::Avx512 => {
                use std::is_x86_feature_detected as has;
                has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Processor::Avx2 => std::is_x86_feature_detected!("avx2"),
        }
    }

    /// Runs a task with these instructions.
    pub(crate) fn run<T: Task>(self, task: T) -> T::Output {
        match self {
            // SAFETY: the machine has the instructions: `all` has found them.
            #[cfg(target_arch = "x86_64")]
            Processor::Avx512 => unsafe { avx512::Avx512::run(task) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Processor::Avx2 => unsafe { avx2::Avx2::run(task) },
        }
    }
}
