//! Pieces of the assembly of [`rv32im`](super::rv32im): macros that name the registers by the operands of `lines!`.

/// Instructions: loads a step's inputs, one of each line, and moves `p` to the next step.
macro_rules! load {
    (1, $load:literal) => {
        concat!($load, " {x0}, 0({p})\n add {p}, {p}, {back}\n")
    };
    (2, $load:literal) => {
        concat!($load, " {x0}, 0({p})\n add {p}, {p}, {line}\n", $load, " {x1}, 0({p})\n add {p}, {p}, {back}\n")
    };
    (3, $load:literal) => {
        concat!(load!(lines, $load), $load, " {x2}, 0({p})\n add {p}, {p}, {back}\n")
    };
    // Those of two lines of outputs: of the first one, and the last one of the second.
    (first, $load:literal) => {
        concat!(load!(lines, $load), $load, " {x2}, 0({p})\n add {p}, {p}, {line}\n")
    };
    (second, $load:literal) => {
        concat!($load, " {x0}, 0({p})\n add {p}, {p}, {back}\n")
    };
    // The first two of three or four lines.
    (lines, $load:literal) => {
        concat!($load, " {x0}, 0({p})\n add {p}, {p}, {line}\n", $load, " {x1}, 0({p})\n add {p}, {p}, {line}\n")
    };
}

/// Instructions: `to` becomes `from` plus the products of a step's inputs with the weights of one tap.
macro_rules! tap {
    (1, $tap:literal, $from:literal, $to:literal) => { tap!($tap, "x0" "0", $from, $to) };
    (2, $tap:literal, $from:literal, $to:literal) => {
        concat!(tap!($tap, "x0" "0", $from, $to), tap!($tap, "x1" "1", $to, $to))
    };
    (3, $tap:literal, $from:literal, $to:literal) => {
        concat!(tap!($tap, "x0" "0", $from, $to), tap!($tap, "x1" "1", $to, $to), tap!($tap, "x2" "2", $to, $to))
    };
    // The second of two lines of outputs: its last input takes the first one's register.
    (second, $tap:literal, $from:literal, $to:literal) => {
        concat!(tap!($tap, "x1" "0", $from, $to), tap!($tap, "x2" "1", $to, $to), tap!($tap, "x0" "2", $to, $to))
    };
    ($tap:literal, $x:literal $line:literal, $from:literal, $to:literal) => {
        concat!("mul {t}, {", $x, "}, {w", $tap, $line, "}\n add ", $to, ", ", $from, ", {t}\n")
    };
}

/// Instructions: loads the weights of a line's taps, and for int8 doubles them.
macro_rules! weights {
    ($dtype:ident, 1, 2) => { weights!($dtype, "w00" "0", "w10" "1") };
    ($dtype:ident, 2, 2) => { concat!(weights!($dtype, 1, 2), weights!($dtype, "w01" "2", "w11" "3")) };
    ($dtype:ident, 1, 3) => { weights!($dtype, "w00" "0", "w10" "1", "w20" "2") };
    ($dtype:ident, 2, 3) => { concat!(weights!($dtype, 1, 3), weights!($dtype, "w01" "3", "w11" "4", "w21" "5")) };
    ($dtype:ident, 3, 3) => { concat!(weights!($dtype, 2, 3), weights!($dtype, "w02" "6", "w12" "7", "w22" "8")) };
    (int8, $($weight:literal $at:literal),+) => {
        concat!($("lb {", $weight, "}, ", $at, "({t})\n"),+, $("slli {", $weight, "}, {", $weight, "}, 1\n"),+)
    };
    (int16, $($weight:literal $at:literal),+) => { concat!($("lb {", $weight, "}, ", $at, "({t})\n"),+) };
}

/// Instructions: `x0` becomes the sum of a tap's weights times `t`.
macro_rules! padding {
    (1, $tap:literal) => {
        concat!("mul {x0}, {w", $tap, "0}, {t}\n")
    };
    (2, $tap:literal) => {
        concat!("add {x0}, {w", $tap, "0}, {w", $tap, "1}\n mul {x0}, {x0}, {t}\n")
    };
    (3, $tap:literal) => {
        concat!("add {x0}, {w", $tap, "0}, {w", $tap, "1}\n add {x0}, {x0}, {w", $tap, "2}\n mul {x0}, {x0}, {t}\n")
    };
}

/// Instructions: requantizes a sum by [`ChannelRecord::OnePass`], stores it as the next output and moves `o` by `advance`. As the clamp contains
/// the zero point, a sum that is not negative is clamped from above only.
macro_rules! finish {
    (int8, $place:literal, $sum:literal, $advance:literal) => {
        concat!(
            "mulhsu ",
            $sum,
            ", ",
            $sum,
            ", {multiplier}\n bltz ",
            $sum,
            ", 2",
            $place,
            "f\n",
            "add ",
            $sum,
            ", ",
            $sum,
            ", {addend}\n sra ",
            $sum,
            ", ",
            $sum,
            ", {shift}\n",
            finish!("sb", $place, $sum, $advance),
        )
    };
    (int16, $place:literal, $sum:literal, $advance:literal) => {
        concat!(
            "mulh ",
            $sum,
            ", ",
            $sum,
            ", {multiplier}\n bltz ",
            $sum,
            ", 2",
            $place,
            "f\n",
            "sra ",
            $sum,
            ", ",
            $sum,
            ", {shift}\n addi ",
            $sum,
            ", ",
            $sum,
            ", 1\n srai ",
            $sum,
            ", ",
            $sum,
            ", 1\n",
            finish!("sh", $place, $sum, $advance),
        )
    };
    ($store:literal, $place:literal, $sum:literal, $advance:literal) => {
        concat!("blt {max}, ", $sum, ", 4", $place, "f\n 3", $place, ":\n ", $store, " ", $sum, ", 0({o})\n", $advance)
    };
}

/// Instructions: the parts of [`finish!`] at a place that are out of line: requantizes a negative sum, and clamps one from above.
macro_rules! out_of_line {
    (int8, $place:literal, $sum:literal) => {
        concat!(
            "2",
            $place,
            ":\n addi ",
            $sum,
            ", ",
            $sum,
            ", -2\n add ",
            $sum,
            ", ",
            $sum,
            ", {addend}\n",
            "sra ",
            $sum,
            ", ",
            $sum,
            ", {shift}\n",
            out_of_line!($place, $sum),
        )
    };
    (int16, $place:literal, $sum:literal) => {
        concat!(
            "2",
            $place,
            ":\n sra ",
            $sum,
            ", ",
            $sum,
            ", {shift}\n addi ",
            $sum,
            ", ",
            $sum,
            ", 1\n",
            "srai ",
            $sum,
            ", ",
            $sum,
            ", 1\n",
            out_of_line!($place, $sum),
        )
    };
    ($place:literal, $sum:literal) => {
        concat!(
            "bge ",
            $sum,
            ", {min}, 3",
            $place,
            "b\n mv ",
            $sum,
            ", {min}\n j 3",
            $place,
            "b\n",
            "4",
            $place,
            ":\n mv ",
            $sum,
            ", {max}\n j 3",
            $place,
            "b\n",
        )
    };
}
