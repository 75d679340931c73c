//! What the kernels of int8 and of int16 layers differ in: elements, accumulators and their requantization.

use core::ops::AddAssign;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::requantize::{Channel, Form, Literal, OnePass, clamp};
use super::rows::add_rows;
use super::tile::{Columns, LANES, dot_4x4};
use crate::image::Element;

/// A form of requantization with the accumulators that it needs.
pub(crate) trait Accumulate {
    /// Of inputs and outputs.
    type Element: Element;
    /// The parameters of an output channel.
    type Channel: ChannelRecord<Element = Self::Element>;
    /// An accumulator.
    type Sum: Copy + From<i32> + AddAssign;
    /// Whether all accumulators fit int32.
    const NARROW: bool;

    /// Accumulators `[channel][pixel]` of a tile: the products of `columns` with `weights`, one row of four channels per position.
    fn dot_4x4(
        channels: &[Self::Channel; LANES],
        columns: &Columns<Self::Element>,
        weights: &[[i8; LANES]],
    ) -> [[Self::Sum; LANES]; LANES];

    /// Requantizes an accumulator, without the clamp.
    fn to_output(channel: &Self::Channel, sum: Self::Sum) -> i32;

    /// Requantizes an accumulator and clamps the result.
    #[inline(always)]
    fn to_clamped_output(channel: &Self::Channel, sum: Self::Sum, min: i32, max: i32) -> i32 {
        clamp(Self::to_output(channel, sum), min, max)
    }
}

/// The parameters of an output channel, as a constant of the image has them.
pub(crate) trait ChannelRecord: Copy + Default + FromBytes + IntoBytes + Immutable {
    /// Of the layer's inputs and outputs.
    type Element: Element;
    /// An accumulator that fits every form.
    type Sum: Copy + From<i32> + AddAssign;
    /// The literal form.
    type Literal: Accumulate<Channel = Self, Element = Self::Element>;
    /// The one-pass form.
    type OnePass: Accumulate<Channel = Self, Element = Self::Element, Sum = i32>;

    /// Bias of the accumulator. Of int64 biases, those beyond 2^62 count as 2^62, which no check lets through.
    fn bias(&self) -> i64;

    /// Bias of an int32 accumulator.
    fn narrow_bias(&self) -> i32;

    /// Bias of an accumulator.
    fn first_sum(&self) -> Self::Sum;

    /// Accumulators of `N` channels: `inputs` times `weights`, `[input][channel]`.
    fn dot_rows<const N: usize>(channels: &[Self; N], inputs: &[Self::Element], weights: &[[i8; N]]) -> [Self::Sum; N];

    /// Requantizes an accumulator, in the one-pass form or the literal one, without the clamp.
    fn requantize(&self, one_pass: bool, sum: Self::Sum) -> i32;
}

impl<F: Form> Accumulate for F {
    type Element = i8;
    type Channel = Channel;
    type Sum = i32;
    const NARROW: bool = true;

    #[inline(always)]
    fn dot_4x4(channels: &[Channel; LANES], columns: &Columns, weights: &[[i8; LANES]]) -> [[i32; LANES]; LANES] {
        dot_4x4(channels.each_ref().map(|channel| channel.bias), columns, weights)
    }

    #[inline(always)]
    fn to_output(channel: &Channel, sum: i32) -> i32 {
        F::requantize(channel, sum)
    }

    #[inline(always)]
    fn to_clamped_output(channel: &Channel, sum: i32, min: i32, max: i32) -> i32 {
        F::requantize_and_clamp(channel, sum, min, max)
    }
}

impl ChannelRecord for Channel {
    type Element = i8;
    type Sum = i32;
    type Literal = Literal;
    type OnePass = OnePass;

    #[inline(always)]
    fn bias(&self) -> i64 {
        self.bias.into()
    }

    #[inline(always)]
    fn narrow_bias(&self) -> i32 {
        self.bias
    }

    #[inline(always)]
    fn first_sum(&self) -> i32 {
        self.bias
    }

    #[inline(always)]
    fn dot_rows<const N: usize>(channels: &[Self; N], inputs: &[i8], weights: &[[i8; N]]) -> [i32; N] {
        let mut sums = channels.each_ref().map(|channel| channel.bias);
        add_rows(&mut sums, inputs, weights);
        sums
    }

    #[inline(always)]
    fn requantize(&self, one_pass: bool, sum: i32) -> i32 {
        if one_pass { OnePass::requantize(self, sum) } else { Literal::requantize(self, sum) }
    }
}
