//! Additions on a PC.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;

use super::{Addition, RaisedMultiplier, Terms};
use crate::arena::{Samples, Shared};
use crate::host::processor::{Instructions, Lanes, Processor, Task};
use crate::host::{HostLayer, are_even};
use crate::kernels::Channel;
use crate::node::Node;
use crate::ops::pairwise;

impl RaisedMultiplier {
    #[inline(always)]
    unsafe fn lanes<I: Instructions>(&self) -> Lanes<I> {
        let &RaisedMultiplier { multiplier, addend, shift, .. } = self;
        // SAFETY: the caller's.
        unsafe { Lanes::of(&Channel { bias: 0, multiplier, addend, shift }) }
    }
}

impl Addition {
    /// The multipliers, if vector instructions have their form.
    fn vector_multipliers(&self) -> Option<&[RaisedMultiplier; 3]> {
        match &self.terms {
            Terms::OnePass(multipliers) => {
                are_even(multipliers.iter().map(|multiplier| &multiplier.multiplier)).then_some(multipliers)
            }
            Terms::Literal(_) => None,
        }
    }

    /// [`Addition::run`] with vector instructions.
    ///
    /// # Safety
    /// The processor has them.
    #[inline(always)]
    pub(in crate::ops) unsafe fn run_on<I: Instructions>(
        &self,
        first: &[Cell<i8>],
        second: &[Cell<i8>],
        output: &[Cell<i8>],
    ) {
        let length = first.len().min(second.len()).min(output.len());
        let mut done = 0;
        if let Some(multipliers) = self.vector_multipliers() {
            let ([z_1, z_2], zero) = (self.elements.zero_points, 0i32);
            let clamp = (self.elements.clamp.0 as i8, self.elements.clamp.1 as i8);
            // SAFETY: the caller's; a vector lies inside the slices, and is read before it is written.
            unsafe {
                let [z_1, z_2] = [I::splat((&raw const z_1).cast()), I::splat((&raw const z_2).cast())];
                let [a, b, y] = [multipliers[0].lanes::<I>(), multipliers[1].lanes(), multipliers[2].lanes()];
                let [a_raise, b_raise, y_raise] = [multipliers[0].raise, multipliers[1].raise, multipliers[2].raise];
                let zero = I::splat((&raw const zero).cast());
                while done + I::LANES <= length {
                    let [first, second] =
                        [I::widen(first.as_ptr().add(done).cast()), I::widen(second.as_ptr().add(done).cast())];
                    let first = I::outputs(I::raise(first, z_1, a_raise), &a);
                    let second = I::outputs(I::raise(second, z_2, b_raise), &b);
                    let sum = I::raise(I::add(first, second), zero, y_raise);
                    I::requantize(sum, &y, clamp, output.as_ptr().add(done).cast_mut().cast(), I::LANES);
                    done += I::LANES;
                }
            }
        }
        self.run(&first[done..length], &second[done..length], &output[done..length]);
    }
}

/// Prepares an addition of int8 values of the same shape.
pub(in crate::ops) fn prepare(node: &Node<'_>, kernel: &str, processor: Processor) -> Option<Box<dyn HostLayer>> {
    let values = [node.input(0), node.input(1), node.output(0)];
    let alike = values.iter().all(|value| value.is_dense() && value.shape == values[2].shape);
    if kernel != super::super::add::NAME || !alike {
        return None;
    }
    let zero_points = [values[0].zero_point, values[1].zero_point];
    let addition = Addition::read(node, node.form(), zero_points, pairwise::clamp_of(node)?).ok()?;
    Some(processor.run(Prepare { addition }))
}

struct Prepare {
    addition: Addition,
}

impl Task for Prepare {
    type Output = Box<dyn HostLayer>;

    #[inline(always)]
    unsafe fn run<I: Instructions>(self) -> Box<dyn HostLayer> {
        Box::new(Layer::<I> { addition: self.addition, instructions: core::marker::PhantomData })
    }
}

/// An addition for a processor.
struct Layer<I> {
    addition: Addition,
    instructions: core::marker::PhantomData<I>,
}

impl<I: Instructions> HostLayer for Layer<I> {
    fn run(&self, _: &Node<'_>, mut samples: Samples<'_>, _: &mut Vec<u8>) {
        samples.each_in_place(|memory| {
            // SAFETY: the layer was prepared for these instructions.
            unsafe { I::run(Add { addition: &self.addition, memory }) }
        });
    }
}

struct Add<'a> {
    addition: &'a Addition,
    memory: Shared<'a>,
}

impl Task for Add<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: Instructions>(self) {
        let Add { addition, memory } = self;
        // SAFETY: the caller's.
        unsafe { addition.run_on::<I>(memory.input(0), memory.input(1), memory.output(0)) };
    }
}
