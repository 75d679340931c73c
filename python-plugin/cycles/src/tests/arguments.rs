use crate::arguments::Arguments;
use crate::cache::{FlashCosts, Geometry};
use crate::model::{Chip, Costs};

const GIVEN: [&str; 15] = [
    "out=counts.csv",
    "cache=16384",
    "ways=8",
    "line=32",
    "load_use=1",
    "taken_branch=2",
    "jump=1",
    "unaligned_target=1",
    "high_multiply=4",
    "divide=20",
    "flash_request=10",
    "flash_first_word=94.4",
    "flash_next_word=31.7",
    "flash=2147483648:1048576",
    "flash=2164260864:16777216",
];

#[test]
fn all_arguments_are_read() {
    let costs =
        Costs { load_use: 10, taken_branch: 20, jump: 10, unaligned_target: 10, high_multiply: 40, divide: 200 };
    let chip = Chip {
        costs,
        cache: Geometry { bytes: 16384, ways: 8, line: 32 },
        flash_costs: FlashCosts { request: 100, first_word: 944, next_word: 317 },
        flash: vec![0x8000_0000..0x8010_0000, 0x8100_0000..0x8200_0000],
    };
    assert_eq!(Arguments::parse(GIVEN), Ok(Arguments { chip, out: "counts.csv".to_owned() }));
}

#[test]
fn each_argument_but_flash_is_needed_once() {
    for (index, left_out) in GIVEN.iter().enumerate().take(13) {
        let (name, _) = left_out.split_once('=').unwrap();
        let others = GIVEN.iter().copied().enumerate().filter(|&(other, _)| other != index);
        assert_eq!(Arguments::parse(others.map(|(_, given)| given)), Err(format!("{name} is missing")));
        let twice = GIVEN.into_iter().chain([*left_out]);
        assert_eq!(Arguments::parse(twice), Err(format!("{name} is given twice")));
    }
}

#[test]
fn wrong_arguments_are_refused() {
    for (given, reason) in [
        ("divide", "\"divide\"; expected name=value"),
        ("divides=1", "divides is unknown"),
        ("flash=1", "\"flash=1\"; expected flash=FIRST:LENGTH in bytes"),
        ("flash=4294967295:2", "\"flash=4294967295:2\"; expected flash=FIRST:LENGTH in bytes"),
    ] {
        let parsed = Arguments::parse(GIVEN.into_iter().chain([given]));
        assert_eq!(parsed, Err(reason.to_owned()), "{given}");
    }
    for (given, reason) in [
        ("ways=eight", "ways=eight; expected a number of bytes or ways"),
        ("ways=0", "a cache of 16384 bytes in 0 ways of lines of 32"),
        ("line=24", "a cache of 16384 bytes in 8 ways of lines of 24"),
        ("cache=1000", "a cache of 1000 bytes in 8 ways of lines of 32"),
        ("jump=-1", "jump=-1; expected cycles with at most one decimal"),
        ("jump=1.25", "jump=1.25; expected cycles with at most one decimal"),
        ("jump=99999999999", "jump=99999999999; expected fewer cycles"),
    ] {
        let name = given.split_once('=').unwrap().0;
        let others = GIVEN.into_iter().filter(|other| other.split_once('=').unwrap().0 != name);
        assert_eq!(Arguments::parse(others.chain([given])), Err(reason.to_owned()), "{given}");
    }
}
