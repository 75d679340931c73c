//! AVX2: 8 lanes, two products of int16 each. Products of bytes, `vpmaddubsw`, saturate.

use core::arch::x86_64::*;

use super::{Instructions, Lanes, Task};

#[derive(Clone, Copy)]
pub(crate) struct Avx2;

impl Instructions for Avx2 {
    type Vector = __m256i;
    const LANES: usize = 8;
    const GROUP: usize = 2;
    const RAISE: i32 = 0;

    #[target_feature(enable = "avx2")]
    unsafe fn run<T: Task>(task: T) -> T::Output {
        // SAFETY: the caller's.
        unsafe { task.run::<Self>() }
    }

    #[inline(always)]
    unsafe fn convert(elements: &[i8], to: &mut [u8]) {
        assert!(2 * elements.len() <= to.len(), "no room for the elements");
        let chunks = elements.as_chunks::<16>().0;
        for (to, chunk) in to.as_chunks_mut::<32>().0.iter_mut().zip(chunks) {
            // SAFETY: the caller's; both have the length of a vector.
            unsafe {
                let vector = _mm256_cvtepi8_epi16(_mm_loadu_si128(chunk.as_ptr().cast()));
                _mm256_storeu_si256(to.as_mut_ptr().cast(), vector);
            }
        }
        let done = 16 * chunks.len();
        for (to, &element) in to[2 * done..].as_chunks_mut().0.iter_mut().zip(&elements[done..]) {
            *to = i16::from(element).to_ne_bytes();
        }
    }

    #[inline(always)]
    unsafe fn load(words: *const i32) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_loadu_si256(words.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(word: *const u8) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_set1_epi32(word.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn multiply_add(sums: __m256i, inputs: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(inputs, weights)) }
    }

    #[inline(always)]
    unsafe fn interleave([a, b, ..]: [*const u8; 4]) -> [__m256i; 4] {
        // SAFETY: the caller's.
        unsafe {
            let [a, b] = [a, b].map(|row| _mm256_loadu_si256(row.cast()));
            let (low, high) = (_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b));
            [low, high, low, high]
        }
    }

    #[inline(always)]
    unsafe fn widen(elements: *const i8) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(elements.cast())) }
    }

    #[inline(always)]
    unsafe fn raise(minuend: __m256i, subtrahend: __m256i, shift: u32) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_sll_epi32(_mm256_sub_epi32(minuend, subtrahend), _mm_cvtsi32_si128(shift as i32)) }
    }

    #[inline(always)]
    unsafe fn add(first: __m256i, second: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_add_epi32(first, second) }
    }

    #[inline(always)]
    unsafe fn outputs(sums: __m256i, channels: &Lanes<Self>) -> __m256i {
        // SAFETY: the caller's.
        unsafe { outputs(sums, channels) }
    }

    #[inline(always)]
    unsafe fn requantize(sums: __m256i, channels: &Lanes<Self>, clamp: (i8, i8), output: *mut i8, count: usize) {
        // SAFETY: the caller's.
        unsafe {
            let outputs = outputs(sums, channels);
            let outputs = _mm_packs_epi32(_mm256_castsi256_si128(outputs), _mm256_extracti128_si256::<1>(outputs));
            write(_mm_packs_epi16(outputs, outputs), clamp, output, count);
        }
    }

    #[inline(always)]
    unsafe fn requantize_interleaved(
        [a, b, ..]: [__m256i; 4],
        channels: &[Lanes<Self>; 4],
        clamp: (i8, i8),
        output: *mut i8,
        count: usize,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let outputs = _mm256_packs_epi32(outputs(a, &channels[0]), outputs(b, &channels[1]));
            let [low, high] = [_mm256_castsi256_si128(outputs), _mm256_extracti128_si256::<1>(outputs)];
            write(_mm_packs_epi16(low, high), clamp, output, count);
        }
    }

    #[inline(always)]
    unsafe fn store(vector: __m256i, words: *mut i32) {
        // SAFETY: the caller's.
        unsafe { _mm256_storeu_si256(words.cast(), vector) }
    }
}

/// Requantizes without the clamp.
#[inline(always)]
unsafe fn outputs(sums: __m256i, channels: &Lanes<Avx2>) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let odd = |vector| _mm256_srli_epi64::<32>(vector);
        // Bits 30 to 61 of each product: of even lanes moved down, of odd ones up.
        let even_products = _mm256_srli_epi64::<30>(_mm256_mul_epi32(sums, channels.mantissa));
        let odd_products = _mm256_slli_epi64::<2>(_mm256_mul_epi32(odd(sums), odd(channels.mantissa)));
        let high = _mm256_blend_epi32::<0xaa>(even_products, odd_products);
        let correction = _mm256_slli_epi32::<1>(_mm256_srai_epi32::<31>(high));
        let sum = _mm256_add_epi32(_mm256_add_epi32(high, channels.addend), correction);
        _mm256_srav_epi32(sum, channels.shift)
    }
}

/// Writes the first `count` elements, at most 16, clamped.
#[inline(always)]
unsafe fn write(elements: __m128i, (min, max): (i8, i8), output: *mut i8, count: usize) {
    // SAFETY: the caller's.
    unsafe {
        let elements = _mm_max_epi8(_mm_min_epi8(elements, _mm_set1_epi8(max)), _mm_set1_epi8(min));
        match count {
            16.. => _mm_storeu_si128(output.cast(), elements),
            8 => _mm_storel_epi64(output.cast(), elements),
            _ => {
                let mut memory = [0i8; 16];
                _mm_storeu_si128(memory.as_mut_ptr().cast(), elements);
                core::ptr::copy_nonoverlapping(memory.as_ptr(), output, count);
            }
        }
    }
}
