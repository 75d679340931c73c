//! A second implementation of the test's operators, in int64, index by index.

/// `gru` of one layer.
pub struct Gru {
    weights: Vec<i64>,
    biases: Vec<i64>,
    inputs: usize,
    pub state: Vec<i64>,
}

impl Gru {
    pub fn new((weights, biases): &(Vec<i8>, Vec<i32>), inputs: usize, units: usize) -> Self {
        let weights = weights.iter().map(|&weight| weight.into()).collect();
        let biases: Vec<i64> = biases.iter().map(|&bias| bias.into()).collect();
        let state = biases[units..].to_vec();
        Gru { weights, biases, inputs, state }
    }

    pub fn reset(&mut self) {
        let units = self.state.len();
        self.state.copy_from_slice(&self.biases[units..]);
    }

    pub fn step(&mut self, x: &[i64]) -> Vec<i64> {
        let units = self.state.len();
        let mut next = vec![];
        for unit in 0..units {
            let mut gates = [0, 0];
            for (gate, sum) in gates.iter_mut().enumerate() {
                let row = (gate * units + unit) * (self.inputs + units);
                *sum = self.biases[gate * units + unit];
                for index in 0..self.inputs {
                    *sum += x[index] * self.weights[row + index];
                }
                for index in 0..units {
                    *sum += self.state[index].div_euclid(256) * self.weights[row + self.inputs + index];
                }
            }
            let z = (gates[0].div_euclid(64) + 16384).clamp(0, 32767);
            let c = gates[1].clamp(-32768, 32767);
            next.push(self.state[unit] + ((c - self.state[unit]) * z).div_euclid(32768));
        }
        self.state = next;
        self.state.iter().map(|h| h.div_euclid(256)).collect()
    }
}

/// `wide` of one layer.
pub struct Wide {
    weights: Vec<i64>,
    biases: Vec<i64>,
    inputs: usize,
}

impl Wide {
    pub fn new((weights, biases): &(Vec<i8>, Vec<i32>), inputs: usize) -> Self {
        let weights = weights.iter().map(|&weight| weight.into()).collect();
        Wide { weights, biases: biases.iter().map(|&bias| bias.into()).collect(), inputs }
    }

    pub fn sums(&self, x: &[i64]) -> Vec<i64> {
        let mut sums = self.biases.clone();
        for (output, sum) in sums.iter_mut().enumerate() {
            for index in 0..self.inputs {
                *sum += x[index] * self.weights[output * self.inputs + index];
            }
        }
        sums
    }

    pub fn int16(&self, x: &[i64], shift: u32) -> Vec<i64> {
        self.sums(x).into_iter().map(|sum| sum.div_euclid(1 << shift).clamp(-32768, 32767)).collect()
    }
}
