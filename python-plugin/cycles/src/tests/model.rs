//! Small programs whose cycles are known by hand.

use crate::cache::{FlashCosts, Geometry};
use crate::instruction::{Instruction, Kind};
use crate::model::{Chip, Costs, Counts, Model};

const FLASH: u32 = 0x1000;
const CONSTANTS: u32 = 0x4000;
const FLASH_LENGTH: u32 = 0x1000;
const RAM: u32 = 0x8000;

/// Whole cycles, each cost another, so that no two are mistaken for each other.
fn chip() -> Model {
    let costs =
        Costs { load_use: 10, taken_branch: 20, jump: 30, unaligned_target: 70, high_multiply: 110, divide: 200 };
    Model::new(Chip {
        costs,
        // Four sets of two ways.
        cache: Geometry { bytes: 256, ways: 2, line: 32 },
        flash_costs: FlashCosts { request: 100, first_word: 900, next_word: 300 },
        flash: vec![CONSTANTS..CONSTANTS + FLASH_LENGTH, FLASH..FLASH + FLASH_LENGTH],
    })
}

/// From a miss to the first word of its line, from one word to the next, and to the end of the line, in cycles.
const FIRST: u64 = 100;
const NEXT: u64 = 30;
const LINE: u64 = FIRST + 7 * NEXT;

fn at(address: u32, size: u32, kind: Kind) -> Instruction {
    Instruction { address, size, kind, reads: 0 }
}

/// Executes instructions one after the other from RAM, each of four bytes and reading some registers.
fn executed(instructions: &[(Kind, u32)]) -> Counts {
    let mut chip = chip();
    for (address, &(kind, reads)) in (RAM..).step_by(4).zip(instructions) {
        chip.execute(&Instruction { address, size: 4, kind, reads });
    }
    *chip.counts()
}

#[test]
fn a_row_has_a_number_for_each_column() {
    let row = executed(&[(Kind::Plain, 0), (Kind::Divide, 0)]).to_string();
    let mut columns: Vec<_> =
        Counts::COLUMNS.split(',').zip(row.split(',')).filter(|(_, number)| *number != "0").collect();
    columns.sort();
    assert_eq!(columns, [("cycles", "22"), ("divides", "1"), ("instructions", "2")]);
    assert_eq!(row.matches(',').count(), Counts::COLUMNS.matches(',').count());
}

#[test]
fn an_instruction_takes_a_cycle() {
    let counts = executed(&[(Kind::Plain, 0), (Kind::Branch, 0), (Kind::ReadCounter, 0), (Kind::Plain, 0)]);
    assert_eq!((counts.instructions, counts.cycles(), counts.taken_branches), (4, 4, 0));
}

#[test]
fn the_next_instruction_waits_for_what_it_reads() {
    let load = (Kind::Load { destination: 5 }, 0);
    let uses = (Kind::Plain, 1 << 5);
    for (program, stalls) in [
        (&[load, uses][..], 1),
        (&[load, (Kind::Branch, 1 << 5 | 1 << 6)], 1),
        // One instruction later it is there.
        (&[load, (Kind::Plain, 1 << 6), uses], 0),
        (&[(Kind::Load { destination: 0 }, 0), (Kind::Plain, 1 << 1)], 0),
        (&[load, (Kind::Load { destination: 5 }, 1 << 5), uses], 2),
    ] {
        let counts = executed(program);
        assert_eq!(counts.load_use_stalls, stalls, "{program:?}");
        assert_eq!(counts.cycles(), program.len() as u64 + stalls, "{program:?}");
    }
}

#[test]
fn high_multiplications_and_divisions_take_longer() {
    let counts = executed(&[(Kind::HighMultiply, 0), (Kind::Divide, 0), (Kind::Divide, 0)]);
    assert_eq!((counts.high_multiplies, counts.divides, counts.cycles()), (1, 2, 3 + 11 + 2 * 20));
}

#[test]
fn branches_and_jumps_take_longer_to_targets_that_are_not_aligned() {
    for (kind, target, size, more) in [
        (Kind::Branch, RAM + 8, 4, 2),
        (Kind::Branch, RAM + 10, 4, 2 + 7),
        (Kind::Branch, RAM + 10, 2, 2),
        (Kind::Jump, RAM + 8, 4, 3),
        (Kind::Jump, RAM + 10, 4, 3 + 7),
        (Kind::Jump, RAM + 10, 2, 3),
        // A jump to what comes next is one all the same.
        (Kind::Jump, RAM + 4, 4, 3),
        (Kind::Branch, RAM + 4, 4, 0),
    ] {
        let mut chip = chip();
        chip.execute(&at(RAM, 4, kind));
        chip.execute(&at(target, size, Kind::Plain));
        assert_eq!(chip.counts().cycles(), 2 + more, "{kind:?} to {target:#x}, of {size} bytes");
    }
}

#[test]
fn code_in_flash_waits_for_each_word_of_a_new_line() {
    let mut chip = chip();
    for address in (FLASH..FLASH + 64).step_by(2) {
        chip.execute(&at(address, 2, Kind::Plain));
    }
    // The last word of a line comes at its end. Its two instructions are executed before the next line is requested.
    let counts = *chip.counts();
    assert_eq!((counts.code_lines, counts.data_lines, counts.cycles()), (2, 0, 2 * (LINE + 2)));
    // Both are in the cache now.
    for address in (FLASH..FLASH + 64).step_by(4) {
        chip.execute(&at(address, 4, Kind::Plain));
    }
    assert_eq!((chip.counts().code_lines, chip.counts().cycles()), (2, 2 * (LINE + 2) + 16));
}

#[test]
fn an_instruction_across_two_lines_waits_for_both() {
    let mut chip = chip();
    chip.execute(&at(FLASH + 30, 4, Kind::Plain));
    assert_eq!((chip.counts().code_lines, chip.counts().cycles()), (2, LINE + FIRST + 1));
}

#[test]
fn loads_from_flash_wait_line_by_line_and_loads_from_ram_do_not() {
    let mut chip = chip();
    for (index, address) in (RAM..).step_by(4).zip([CONSTANTS, CONSTANTS + 32, CONSTANTS + 4, RAM]) {
        chip.execute(&at(index, 4, Kind::Load { destination: 0 }));
        chip.load(address);
    }
    let counts = *chip.counts();
    // The second line is requested when the first has arrived. Then the first is there, and RAM always.
    let cycles = 1 + LINE + FIRST + 2;
    assert_eq!((counts.data_lines, counts.code_lines, counts.cycles()), (2, 0, cycles));
    assert_eq!(counts.flash_cycles(), cycles - counts.instructions);
}

#[test]
fn data_replace_the_oldest_line_even_if_its_code_is_running() {
    let mut chip = chip();
    // 128 bytes further is the same set, which has two ways.
    let load = at(FLASH, 2, Kind::Load { destination: 0 });
    chip.execute(&load);
    assert_eq!(chip.counts().code_lines, 1);
    for (address, misses) in [(FLASH + 128, 1), (FLASH + 128, 1), (FLASH + 256, 2), (FLASH + 384, 3)] {
        chip.load(address);
        assert_eq!(chip.counts().data_lines, misses);
    }
    chip.execute(&at(FLASH + 2, 2, Kind::Plain));
    assert_eq!(chip.counts().code_lines, 2);
}
