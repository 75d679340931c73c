//! AVX-512 with VNNI: 16 lanes, four products each.

use core::arch::x86_64::*;

use super::{Instructions, Lanes, Task};

#[derive(Clone, Copy)]
pub(crate) struct Avx512;

impl Instructions for Avx512 {
    type Vector = __m512i;
    const LANES: usize = 16;
    const GROUP: usize = 4;
    // `vpdpbusd` multiplies unsigned inputs by signed weights.
    const RAISE: i32 = 128;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn run<T: Task>(task: T) -> T::Output {
        // SAFETY: the caller's.
        unsafe { task.run::<Self>() }
    }

    #[inline(always)]
    unsafe fn convert(elements: &[i8], to: &mut [u8]) {
        assert!(elements.len() <= to.len(), "no room for the elements");
        let (mut from, mut to, mut rest) = (elements.as_ptr(), to.as_mut_ptr(), elements.len());
        // SAFETY: the caller's, and the lengths were checked above.
        unsafe {
            while rest >= 64 {
                let raised = _mm512_xor_si512(_mm512_loadu_si512(from.cast()), _mm512_set1_epi8(i8::MIN));
                _mm512_storeu_si512(to.cast(), raised);
                (from, to, rest) = (from.add(64), to.add(64), rest - 64);
            }
            while rest >= 16 {
                let raised = _mm_xor_si128(_mm_loadu_si128(from.cast()), _mm_set1_epi8(i8::MIN));
                _mm_storeu_si128(to.cast(), raised);
                (from, to, rest) = (from.add(16), to.add(16), rest - 16);
            }
            if rest >= 8 {
                let raised = _mm_xor_si128(_mm_loadl_epi64(from.cast()), _mm_set1_epi8(i8::MIN));
                _mm_storel_epi64(to.cast(), raised);
                (from, to, rest) = (from.add(8), to.add(8), rest - 8);
            }
            while rest > 0 {
                to.write(*from as u8 ^ 0x80);
                (from, to, rest) = (from.add(1), to.add(1), rest - 1);
            }
        }
    }

    #[inline(always)]
    unsafe fn load(words: *const i32) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_si512(words.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(word: *const u8) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_set1_epi32(word.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn multiply_add(sums: __m512i, inputs: __m512i, weights: __m512i) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_dpbusd_epi32(sums, inputs, weights) }
    }

    #[inline(always)]
    unsafe fn interleave(rows: [*const u8; 4]) -> [__m512i; 4] {
        // SAFETY: the caller's.
        unsafe {
            let [a, b, c, d] = rows.map(|row| _mm512_loadu_si512(row.cast()));
            let [low, high] = [_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)];
            let [other_low, other_high] = [_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d)];
            [
                _mm512_unpacklo_epi16(low, other_low),
                _mm512_unpackhi_epi16(low, other_low),
                _mm512_unpacklo_epi16(high, other_high),
                _mm512_unpackhi_epi16(high, other_high),
            ]
        }
    }

    #[inline(always)]
    unsafe fn widen(elements: *const i8) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(elements.cast())) }
    }

    #[inline(always)]
    unsafe fn raise(minuend: __m512i, subtrahend: __m512i, shift: u32) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_sll_epi32(_mm512_sub_epi32(minuend, subtrahend), _mm_cvtsi32_si128(shift as i32)) }
    }

    #[inline(always)]
    unsafe fn add(first: __m512i, second: __m512i) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_add_epi32(first, second) }
    }

    #[inline(always)]
    unsafe fn outputs(sums: __m512i, channels: &Lanes<Self>) -> __m512i {
        // SAFETY: the caller's.
        unsafe { outputs(sums, channels) }
    }

    #[inline(always)]
    unsafe fn requantize(sums: __m512i, channels: &Lanes<Self>, (min, max): (i8, i8), output: *mut i8, count: usize) {
        // SAFETY: the caller's.
        unsafe {
            let outputs = _mm512_cvtsepi32_epi8(outputs(sums, channels));
            let outputs = _mm_max_epi8(_mm_min_epi8(outputs, _mm_set1_epi8(max)), _mm_set1_epi8(min));
            match count {
                Self::LANES.. => _mm_storeu_si128(output.cast(), outputs),
                8 => _mm_storel_epi64(output.cast(), outputs),
                _ => {
                    // Not a masked store, which takes some processors many cycles.
                    let mut memory = [0i8; Self::LANES];
                    _mm_storeu_si128(memory.as_mut_ptr().cast(), outputs);
                    core::ptr::copy_nonoverlapping(memory.as_ptr(), output, count);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn requantize_interleaved(
        [a, b, c, d]: [__m512i; 4],
        channels: &[Lanes<Self>; 4],
        (min, max): (i8, i8),
        output: *mut i8,
        count: usize,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let low = _mm512_packs_epi32(outputs(a, &channels[0]), outputs(b, &channels[1]));
            let high = _mm512_packs_epi32(outputs(c, &channels[2]), outputs(d, &channels[3]));
            let outputs = _mm512_packs_epi16(low, high);
            let outputs = _mm512_max_epi8(_mm512_min_epi8(outputs, _mm512_set1_epi8(max)), _mm512_set1_epi8(min));
            if count >= 64 {
                _mm512_storeu_si512(output.cast(), outputs);
            } else {
                let mut memory = [0i8; 64];
                _mm512_storeu_si512(memory.as_mut_ptr().cast(), outputs);
                core::ptr::copy_nonoverlapping(memory.as_ptr(), output, count);
            }
        }
    }

    #[inline(always)]
    unsafe fn store(vector: __m512i, words: *mut i32) {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_si512(words.cast(), vector) }
    }
}

/// Requantizes without the clamp.
#[inline(always)]
unsafe fn outputs(sums: __m512i, channels: &Lanes<Avx512>) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let odd = |vector| _mm512_srli_epi64::<32>(vector);
        // Bits 30 to 61 of each product: of even lanes moved down, of odd ones up.
        let even_products = _mm512_srli_epi64::<30>(_mm512_mul_epi32(sums, channels.mantissa));
        let odd_products = _mm512_slli_epi64::<2>(_mm512_mul_epi32(odd(sums), odd(channels.mantissa)));
        let high = _mm512_mask_blend_epi32(0xaaaa, even_products, odd_products);
        let sum = _mm512_add_epi32(high, channels.addend);
        let sum = _mm512_mask_sub_epi32(sum, _mm512_movepi32_mask(high), sum, _mm512_set1_epi32(2));
        _mm512_srav_epi32(sum, channels.shift)
    }
}
