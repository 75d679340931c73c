//! Sigmoid and tanh of int16 numbers: linear interpolation in one table. Bit-exact with TensorFlow Lite Micro's int16 `LOGISTIC` and `TANH`,
//! which are within 1.1 and 2.5 steps of 2^-15 of the functions.

/// `sigmoid(i / 24)` in steps of 2^-16, as TensorFlow Lite has it: rounded, up to one step above.
#[rustfmt::skip]
pub static TABLE: [u16; 256] = [
    32768, 33451, 34133, 34813, 35493, 36169, 36843, 37513, 38180, 38841, 39498, 40149, 40794, 41432, 42064, 42688,
    43304, 43912, 44511, 45102, 45683, 46255, 46817, 47369, 47911, 48443, 48964, 49475, 49975, 50464, 50942, 51409,
    51865, 52311, 52745, 53169, 53581, 53983, 54374, 54755, 55125, 55485, 55834, 56174, 56503, 56823, 57133, 57433,
    57724, 58007, 58280, 58544, 58800, 59048, 59288, 59519, 59743, 59959, 60168, 60370, 60565, 60753, 60935, 61110,
    61279, 61441, 61599, 61750, 61896, 62036, 62172, 62302, 62428, 62549, 62666, 62778, 62886, 62990, 63090, 63186,
    63279, 63368, 63454, 63536, 63615, 63691, 63765, 63835, 63903, 63968, 64030, 64090, 64148, 64204, 64257, 64308,
    64357, 64405, 64450, 64494, 64536, 64576, 64614, 64652, 64687, 64721, 64754, 64786, 64816, 64845, 64873, 64900,
    64926, 64950, 64974, 64997, 65019, 65039, 65060, 65079, 65097, 65115, 65132, 65149, 65164, 65179, 65194, 65208,
    65221, 65234, 65246, 65258, 65269, 65280, 65291, 65301, 65310, 65319, 65328, 65337, 65345, 65352, 65360, 65367,
    65374, 65381, 65387, 65393, 65399, 65404, 65410, 65415, 65420, 65425, 65429, 65433, 65438, 65442, 65445, 65449,
    65453, 65456, 65459, 65462, 65465, 65468, 65471, 65474, 65476, 65479, 65481, 65483, 65485, 65488, 65489, 65491,
    65493, 65495, 65497, 65498, 65500, 65501, 65503, 65504, 65505, 65507, 65508, 65509, 65510, 65511, 65512, 65513,
    65514, 65515, 65516, 65517, 65517, 65518, 65519, 65520, 65520, 65521, 65522, 65522, 65523, 65523, 65524, 65524,
    65525, 65525, 65526, 65526, 65526, 65527, 65527, 65528, 65528, 65528, 65529, 65529, 65529, 65529, 65530, 65530,
    65530, 65530, 65531, 65531, 65531, 65531, 65531, 65532, 65532, 65532, 65532, 65532, 65532, 65533, 65533, 65533,
    65533, 65533, 65533, 65533, 65533, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65535,
];

/// Sigmoid of x in steps of 2^-12, in steps of 2^-15.
///
/// ```
/// use nano_core::sigmoid::sigmoid;
/// assert_eq!([0, 4096, -32768].map(sigmoid), [16384, 23956, 11]);
/// ```
// Not inlined, for code size.
#[inline(never)]
pub fn sigmoid(x: i16) -> i16 {
    let x = 3 * i32::from(x);
    let y = of_magnitude(x.unsigned_abs(), 9);
    let rounded = if x >= 0 { y + (1 << 9) } else { (1 << 25) - y + (1 << 9) - 1 };
    (rounded >> 10) as i16
}

/// Tanh of x in steps of 2^`exponent`, which is one of [`EXPONENTS`], in steps of 2^-15.
///
/// ```
/// use nano_core::sigmoid::tanh;
/// assert_eq!([0, 4096, -32768].map(|x| tanh(x, -12)), [0, 24956, -32767]);
/// ```
// Not inlined, for code size.
#[inline(never)]
pub fn tanh(x: i16, exponent: i32) -> i16 {
    let (x, shift) = (3 * i32::from(x), exponent + 12);
    let x = if shift >= 0 { x << (shift & 31) } else { (x + (1 << ((-shift - 1) & 31))) >> (-shift & 31) };
    let y = of_magnitude(x.unsigned_abs(), 8) - (1 << 23);
    let rounded = if x >= 0 { y + (1 << 7) } else { -y + (1 << 7) - 1 };
    (rounded >> 8) as i16
}

/// The exponents of [`tanh`]'s steps: no shift overflows.
pub const EXPONENTS: core::ops::RangeInclusive<i32> = -43..=2;

/// The table at `x / 2^bits`, between two entries on the line through them, times 2^bits.
#[inline(always)]
fn of_magnitude(x: u32, bits: u32) -> i32 {
    let entry = |index: usize| TABLE.get(index).copied().unwrap_or(u16::MAX).into();
    let index = (x >> bits) as usize;
    let (low, high): (i32, i32) = (entry(index), entry(index + 1));
    (low << bits) + (x & ((1 << bits) - 1)) as i32 * (high - low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(x: i16, exponent: i32) -> f64 {
        f64::from(x) * f64::from(exponent).exp2()
    }

    #[test]
    fn sigmoid_and_tanh_are_within_their_bound() {
        for x in i16::MIN..=i16::MAX {
            let real = 32768.0 / (1.0 + (-exact(x, -12)).exp());
            assert!((f64::from(sigmoid(x)) - real).abs() < 1.1, "{x}: {} {real}", sigmoid(x));
            for exponent in EXPONENTS {
                let real = 32768.0 * exact(x, exponent).tanh();
                assert!((f64::from(tanh(x, exponent)) - real).abs() < 2.5, "{x}, {exponent}: {real}");
            }
        }
    }
}
