//! The trainable head in an image: its record with its identity, and its initial state.

use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::super::checksum::checksum_of;
use super::super::{HeadRecord, ModelDescription, Section, Tensor, Value, ValueDescription, WriteError};
use crate::train::{Rejection, RejectionDescription};

/// A head that is packed and not yet placed.
pub(super) struct Head {
    record: HeadRecord,
    state: Vec<u8>,
    centres: Vec<i8>,
}

impl Head {
    /// Packs the head of a model, if it has one.
    ///
    /// # Errors
    /// Those of the trainer.
    pub fn pack(model: &ModelDescription) -> Result<Option<Self>, WriteError> {
        let Some(head) = &model.head else {
            return match model.rejection {
                None => Ok(None),
                Some(_) => Err(WriteError::setting("rejection", "for a model without a head", "a trainable head")),
            };
        };
        let id = model.outputs[0].id;
        let features = model.values().nth(id).map(Value::unplaced).ok_or(WriteError::ValueId(id))?;
        let (record, state) = head.pack(&features)?;
        let mut described = Described::default();
        described.network(model);
        model.labels.iter().for_each(|label| described.bytes(label.as_bytes()));
        // The places and the id of this record are still 0, and what its predictions mean.
        described.bytes(record.as_bytes());
        described.bytes(&state);
        let mut record = HeadRecord { id: checksum_of(&described.0), ..record };
        let mut centres = Vec::new();
        if let Some(rejection) = &model.rejection {
            centres = rejection.centres.clone();
            let centres_length = centres.len() as u32;
            let &RejectionDescription { temperature, variance, limit, .. } = rejection;
            record = HeadRecord { temperature, variance, limit, centres_length, ..record };
            Rejection::check(&record)?;
        }
        Ok(Some(Head { record, state, centres }))
    }

    /// Places its state and centres by `push`; returns its record.
    ///
    /// # Errors
    /// Those of `push`.
    pub fn place(self, mut push: impl FnMut(&[u8]) -> Result<Section, WriteError>) -> Result<HeadRecord, WriteError> {
        let Section { offset, length } = push(&self.state)?;
        let centres_offset = push(self.centres.as_bytes())?.offset;
        Ok(HeadRecord { state_offset: offset, state_length: length, centres_offset, ..self.record })
    }
}

/// A description as bytes. Each part has its length before it, so that two descriptions have the same bytes only if they are the same.
#[derive(Default)]
struct Described(Vec<u8>);

impl Described {
    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as i64);
        self.0.extend_from_slice(bytes);
    }

    fn number(&mut self, number: i64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn numbers(&mut self, numbers: &[usize]) {
        self.number(numbers.len() as i64);
        numbers.iter().for_each(|&number| self.number(number as i64));
    }

    /// The network without names: what decides the features of an input.
    fn network(&mut self, model: &ModelDescription) {
        self.number(model.inputs.len() as i64);
        for input in &model.inputs {
            self.value(&input.value);
            self.bytes(input.channels.as_bytes());
        }
        self.number(model.layers.len() as i64);
        for layer in &model.layers {
            self.bytes(layer.operator.as_bytes());
            self.numbers(&layer.inputs);
            self.number(layer.outputs.len() as i64);
            layer.outputs.iter().for_each(|value| self.value(value));
            self.number(layer.attributes.len() as i64);
            for (name, &attribute) in &layer.attributes {
                self.bytes(name.as_bytes());
                self.number(attribute);
            }
            self.number(layer.tensors.len() as i64);
            for (name, tensor) in &layer.tensors {
                self.bytes(name.as_bytes());
                self.bytes(match tensor {
                    Tensor::Int8(elements) => elements.as_bytes(),
                    Tensor::Int16(elements) => elements.as_bytes(),
                    Tensor::Int32(elements) => elements.as_bytes(),
                    Tensor::Int64(elements) => elements.as_bytes(),
                    Tensor::Float32(elements) => elements.as_bytes(),
                });
            }
        }
        let outputs: Vec<usize> = model.outputs.iter().map(|output| output.id).collect();
        self.numbers(&outputs);
    }

    fn value(&mut self, value: &ValueDescription) {
        let ValueDescription { dtype, shape, scale, zero_point, state } = value;
        self.number(dtype.size() as i64);
        shape.iter().for_each(|&length| self.number(length.into()));
        self.bytes(&scale.to_le_bytes());
        self.number((*zero_point).into());
        self.number((*state).into());
    }
}
