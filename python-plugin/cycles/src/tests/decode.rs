use crate::instruction::{Instruction, Kind};

const A0: u32 = 10;
const A1: u32 = 11;
const SP: u32 = 2;

/// Words as an assembler for rv32imc writes them, with the registers that each reads.
const WORDS: &[(u32, &str, Kind, &[u32])] = &[
    (0x0005_2503, "lw a0, 0(a0)", Kind::Load { destination: A0 }, &[A0]),
    (0x0005_c583, "lbu a1, 0(a1)", Kind::Load { destination: A1 }, &[A1]),
    (0x0005_2003, "lw zero, 0(a0)", Kind::Load { destination: 0 }, &[A0]),
    (0x00b5_2023, "sw a1, 0(a0)", Kind::Plain, &[A0, A1]),
    (0x00b5_0533, "add a0, a0, a1", Kind::Plain, &[A0, A1]),
    (0x40b0_0533, "sub a0, zero, a1", Kind::Plain, &[A1]),
    (0x0015_0513, "addi a0, a0, 1", Kind::Plain, &[A0]),
    (0x02b5_0533, "mul a0, a0, a1", Kind::Plain, &[A0, A1]),
    (0x02b5_1533, "mulh a0, a0, a1", Kind::HighMultiply, &[A0, A1]),
    (0x02b5_2533, "mulhsu a0, a0, a1", Kind::HighMultiply, &[A0, A1]),
    (0x02b5_3533, "mulhu a0, a0, a1", Kind::HighMultiply, &[A0, A1]),
    (0x02b5_4533, "div a0, a0, a1", Kind::Divide, &[A0, A1]),
    (0x02b5_7533, "remu a0, a0, a1", Kind::Divide, &[A0, A1]),
    (0x00b5_0463, "beq a0, a1, 8", Kind::Branch, &[A0, A1]),
    (0x0080_00ef, "jal ra, 8", Kind::Jump, &[]),
    (0x0005_0067, "jr 0(a0)", Kind::Jump, &[A0]),
    (0x1234_5537, "lui a0, 0x12345", Kind::Plain, &[]),
    (0x0000_0517, "auipc a0, 0", Kind::Plain, &[]),
    (0xb020_2573, "csrr a0, minstret", Kind::ReadCounter, &[]),
    (0xc020_2573, "rdinstret a0", Kind::ReadCounter, &[]),
    (0xb820_2573, "csrr a0, minstreth", Kind::Plain, &[]),
    (0x3055_1073, "csrw mtvec, a0", Kind::Plain, &[A0]),
    (0x0ff0_000f, "fence", Kind::Plain, &[]),
    (0x1050_0073, "wfi", Kind::Plain, &[]),
];

const HALVES: &[(u16, &str, Kind, &[u32])] = &[
    (0x0808, "c.addi4spn a0, 16", Kind::Plain, &[SP]),
    (0x4108, "c.lw a0, 0(a0)", Kind::Load { destination: A0 }, &[A0]),
    (0xc10c, "c.sw a1, 0(a0)", Kind::Plain, &[A0, A1]),
    (0x0505, "c.addi a0, 1", Kind::Plain, &[A0]),
    (0x0001, "c.nop", Kind::Plain, &[]),
    (0x2021, "c.jal 8", Kind::Jump, &[]),
    (0x4505, "c.li a0, 1", Kind::Plain, &[]),
    (0x1141, "c.addi sp, -16", Kind::Plain, &[SP]),
    (0x7139, "c.addi16sp sp, -64", Kind::Plain, &[SP]),
    (0x6505, "c.lui a0, 1", Kind::Plain, &[]),
    (0x8505, "c.srai a0, 1", Kind::Plain, &[A0]),
    (0x8905, "c.andi a0, 1", Kind::Plain, &[A0]),
    (0x8d0d, "c.sub a0, a1", Kind::Plain, &[A0, A1]),
    (0x8d6d, "c.and a0, a1", Kind::Plain, &[A0, A1]),
    (0xa021, "c.j 8", Kind::Jump, &[]),
    (0xc501, "c.beqz a0, 8", Kind::Branch, &[A0]),
    (0xe501, "c.bnez a0, 8", Kind::Branch, &[A0]),
    (0x0506, "c.slli a0, 1", Kind::Plain, &[A0]),
    (0x4502, "c.lwsp a0, 0(sp)", Kind::Load { destination: A0 }, &[SP]),
    (0x8502, "c.jr a0", Kind::Jump, &[A0]),
    (0x9502, "c.jalr a0", Kind::Jump, &[A0]),
    (0x852e, "c.mv a0, a1", Kind::Plain, &[A1]),
    (0x952e, "c.add a0, a1", Kind::Plain, &[A0, A1]),
    (0xc02e, "c.swsp a1, 0(sp)", Kind::Plain, &[SP, A1]),
];

#[test]
fn instructions_are_known_by_cost_and_by_the_registers_they_read() {
    let words = WORDS.iter().map(|(word, text, kind, reads)| (word.to_le_bytes().to_vec(), text, kind, reads));
    let halves = HALVES.iter().map(|(half, text, kind, reads)| (half.to_le_bytes().to_vec(), text, kind, reads));
    for (bytes, text, &kind, reads) in words.chain(halves) {
        let reads = reads.iter().map(|register| 1 << register).sum();
        let expected = Instruction { address: 64, size: bytes.len() as u32, kind, reads };
        assert_eq!(Instruction::decode(64, &bytes), expected, "{text}");
    }
}
