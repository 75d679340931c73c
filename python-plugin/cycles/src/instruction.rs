//! What the cycle model needs to know of an rv32imc instruction.

/// Instructions by what they cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// One cycle.
    Plain,
    /// A load into a register.
    Load {
        /// Its number.
        destination: u32,
    },
    /// A conditional branch.
    Branch,
    /// A jump, call or return.
    Jump,
    /// A multiplication that returns the high word.
    HighMultiply,
    /// A division or remainder.
    Divide,
    /// A read of the low word of the counter of retired instructions.
    ReadCounter,
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instruction {
    /// Of its first byte.
    pub address: u32,
    /// In bytes: 2 or 4.
    pub size: u32,
    pub kind: Kind,
    /// One bit for each register that it reads; never x0's, which nothing is loaded into.
    pub reads: u32,
}

impl Instruction {
    /// The instruction of two bytes (compressed) or four at an address.
    pub fn decode(address: u32, bytes: &[u8]) -> Self {
        match *bytes {
            [a, b, c, d] => full(address, u32::from_le_bytes([a, b, c, d])),
            [a, b] => compressed(address, u32::from(u16::from_le_bytes([a, b]))),
            _ => panic!("an instruction of {} bytes at {address:#x}; rv32imc has 2 or 4", bytes.len()),
        }
    }

    /// The address of its last byte.
    pub fn last_byte(&self) -> u32 {
        self.address + self.size - 1
    }
}

/// `count` bits of a word from bit `low` on.
fn bits(word: u32, low: u32, count: u32) -> u32 {
    (word >> low) & ((1 << count) - 1)
}

fn mask(registers: &[u32]) -> u32 {
    registers.iter().fold(0, |mask, register| mask | 1 << register) & !1
}

/// The CSRs `minstret` and `instret`.
const COUNTERS: [u32; 2] = [0xb02, 0xc02];

fn full(address: u32, word: u32) -> Instruction {
    let (destination, function) = (bits(word, 7, 5), bits(word, 12, 3));
    let (first, second) = (bits(word, 15, 5), bits(word, 20, 5));
    let (kind, reads) = match bits(word, 0, 7) {
        0x03 => (Kind::Load { destination }, mask(&[first])),
        0x13 => (Kind::Plain, mask(&[first])),
        0x23 => (Kind::Plain, mask(&[first, second])),
        0x33 => {
            let kind = match (bits(word, 25, 7), function) {
                (1, 1..=3) => Kind::HighMultiply,
                (1, 4..=7) => Kind::Divide,
                _ => Kind::Plain,
            };
            (kind, mask(&[first, second]))
        }
        0x63 => (Kind::Branch, mask(&[first, second])),
        0x67 => (Kind::Jump, mask(&[first])),
        0x6f => (Kind::Jump, 0),
        0x73 => {
            let kind =
                if function != 0 && COUNTERS.contains(&bits(word, 20, 12)) { Kind::ReadCounter } else { Kind::Plain };
            // The upper half of the functions has a number in place of the register.
            (kind, if matches!(function, 1..=3) { mask(&[first]) } else { 0 })
        }
        // lui, auipc, fence.
        _ => (Kind::Plain, 0),
    };
    Instruction { address, size: 4, kind, reads }
}

/// The stack pointer's number, which some compressed instructions imply.
const SP: u32 = 2;

fn compressed(address: u32, word: u32) -> Instruction {
    let (wide, second) = (bits(word, 7, 5), bits(word, 2, 5));
    // Fields of three bits name x8 to x15.
    let (high, low) = (8 + bits(word, 7, 3), 8 + bits(word, 2, 3));
    let (kind, reads) = match (bits(word, 0, 2), bits(word, 13, 3)) {
        // c.addi4spn
        (0, 0) => (Kind::Plain, mask(&[SP])),
        // c.lw
        (0, 2) => (Kind::Load { destination: low }, mask(&[high])),
        // c.sw
        (0, 6) => (Kind::Plain, mask(&[high, low])),
        // c.jal, c.j
        (1, 1 | 5) => (Kind::Jump, 0),
        // c.li
        (1, 2) => (Kind::Plain, 0),
        // c.addi16sp, c.lui
        (1, 3) => (Kind::Plain, if wide == SP { mask(&[SP]) } else { 0 }),
        // c.sub, c.xor, c.or, c.and; shifts and c.andi
        (1, 4) if bits(word, 10, 2) == 3 => (Kind::Plain, mask(&[high, low])),
        (1, 4) => (Kind::Plain, mask(&[high])),
        // c.beqz, c.bnez
        (1, 6 | 7) => (Kind::Branch, mask(&[high])),
        // c.addi, c.slli
        (1 | 2, 0) => (Kind::Plain, mask(&[wide])),
        // c.lwsp
        (2, 2) => (Kind::Load { destination: wide }, mask(&[SP])),
        // c.jr, c.jalr, c.ebreak
        (2, 4) if second == 0 => (Kind::Jump, mask(&[wide])),
        // c.mv, c.add
        (2, 4) if bits(word, 12, 1) == 0 => (Kind::Plain, mask(&[second])),
        (2, 4) => (Kind::Plain, mask(&[wide, second])),
        // c.swsp
        (2, 6) => (Kind::Plain, mask(&[SP, second])),
        // Those of floats and the reserved, which rv32imc does not execute.
        _ => (Kind::Plain, 0),
    };
    Instruction { address, size: 2, kind, reads }
}
