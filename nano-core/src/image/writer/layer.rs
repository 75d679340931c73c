//! A layer that is being written: its description for kernels, and its packed constants.

use alloc::string::ToString;
use alloc::vec::Vec;

use zerocopy::IntoBytes;

use crate::fixed_point::Multiplier;
use crate::image::{LayerDescription, Tensor, Value, WriteError};
use crate::operator::Operator;

/// A layer that is being written, as a kernel's `cost` and `pack` see it.
pub struct Layer<'d> {
    /// The input values.
    pub inputs: Vec<Value>,
    /// The output values.
    pub outputs: Vec<Value>,
    /// The attributes, in the operator's order.
    pub attributes: Vec<i32>,
    /// Multiply-accumulates of one run.
    pub macs: u64,
    pub(super) description: &'d LayerDescription,
}

/// The attributes in the operator's order: all of them, and no others.
pub(super) fn attributes(operator: &Operator, description: &LayerDescription) -> Result<Vec<i32>, WriteError> {
    let wrong = |name: &str, problem| WriteError::Attribute {
        operator: description.operator.clone(),
        name: name.to_string(),
        problem,
    };
    let (given, names) = (&description.attributes, operator.attributes);
    if let Some(name) = given.keys().find(|name| !names.contains(&name.as_str())) {
        return Err(wrong(name, "is unknown"));
    }
    let word = |&name: &&str| {
        let value = *given.get(name).ok_or_else(|| wrong(name, "is missing"))?;
        i32::try_from(value).map_err(|_| wrong(name, "does not fit 32 bits"))
    };
    names.iter().map(word).collect()
}

impl<'d> Layer<'d> {
    /// A part of this layer, with other values and attributes, and the same tensors.
    pub(crate) fn part(&self, inputs: &[Value], output: Value, attributes: &[i32]) -> Layer<'d> {
        let (inputs, outputs, attributes) = (inputs.to_vec(), alloc::vec![output], attributes.to_vec());
        Layer { inputs, outputs, attributes, macs: self.macs, description: self.description }
    }

    /// The tensor `name`, of `length` elements.
    ///
    /// # Errors
    /// [`WriteError::Tensor`] if it is absent, or has another dtype or length.
    pub fn int8(&self, name: &str, length: usize) -> Result<&'d [i8], WriteError> {
        match self.description.tensors.get(name) {
            Some(Tensor::Int8(data)) if data.len() == length => Ok(data),
            _ => Err(self.tensor_error(name, "int8", length)),
        }
    }

    /// As [`Layer::int8`].
    ///
    /// # Errors
    /// As there.
    pub fn int16(&self, name: &str, length: usize) -> Result<&'d [i16], WriteError> {
        match self.description.tensors.get(name) {
            Some(Tensor::Int16(data)) if data.len() == length => Ok(data),
            _ => Err(self.tensor_error(name, "int16", length)),
        }
    }

    /// As [`Layer::int8`].
    ///
    /// # Errors
    /// As there.
    pub fn int32(&self, name: &str, length: usize) -> Result<&'d [i32], WriteError> {
        match self.description.tensors.get(name) {
            Some(Tensor::Int32(data)) if data.len() == length => Ok(data),
            _ => Err(self.tensor_error(name, "int32", length)),
        }
    }

    /// As [`Layer::int8`].
    ///
    /// # Errors
    /// As there.
    pub fn int64(&self, name: &str, length: usize) -> Result<&'d [i64], WriteError> {
        match self.description.tensors.get(name) {
            Some(Tensor::Int64(data)) if data.len() == length => Ok(data),
            _ => Err(self.tensor_error(name, "int64", length)),
        }
    }

    /// As [`Layer::int8`].
    ///
    /// # Errors
    /// As there.
    pub fn float32(&self, name: &str, length: usize) -> Result<&'d [f32], WriteError> {
        match self.description.tensors.get(name) {
            Some(Tensor::Float32(data)) if data.len() == length => Ok(data),
            _ => Err(self.tensor_error(name, "float32", length)),
        }
    }

    fn tensor_error(&self, name: &str, kind: &str, length: usize) -> WriteError {
        let given = match self.description.tensors.get(name) {
            None => "is missing".to_string(),
            Some(Tensor::Int8(data)) => alloc::format!("is int8 of length {}", data.len()),
            Some(Tensor::Int16(data)) => alloc::format!("is int16 of length {}", data.len()),
            Some(Tensor::Int32(data)) => alloc::format!("is int32 of length {}", data.len()),
            Some(Tensor::Int64(data)) => alloc::format!("is int64 of length {}", data.len()),
            Some(Tensor::Float32(data)) => alloc::format!("is float32 of length {}", data.len()),
        };
        let needed = alloc::format!("{kind} of length {length}, it {given}");
        WriteError::Tensor { operator: self.description.operator.clone(), name: name.to_string(), needed }
    }

    /// The error of a layer that breaks a rule of its operator.
    pub fn refused(&self, rule: &'static str, value: f64) -> WriteError {
        WriteError::Refused { operator: self.description.operator.clone(), rule, value }
    }
}

/// A kernel's data of a layer in the image.
#[derive(Default)]
pub struct Packed {
    /// Form of requantization.
    pub form: u8,
    /// Constants, packed for the kernel.
    pub constants: Vec<Vec<u8>>,
    /// Bytes of scratch memory.
    pub scratch_length: usize,
    /// Bytes of constants that one run reads. None: each constant once; a kernel that walks them for every tile reads them as often.
    pub read: Option<usize>,
}

impl Packed {
    /// Bytes of all constants.
    pub(crate) fn length(&self) -> usize {
        self.constants.iter().map(Vec::len).sum()
    }

    pub(crate) fn push_words(&mut self, words: &[i32]) {
        self.constants.push(words.as_bytes().to_vec());
    }

    pub(crate) fn push_multipliers(&mut self, multipliers: &[Multiplier]) {
        let words: Vec<i32> =
            multipliers.iter().flat_map(|multiplier| [multiplier.mantissa, multiplier.shift]).collect();
        self.push_words(&words);
    }
}
