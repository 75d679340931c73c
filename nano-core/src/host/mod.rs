//! Runs of models on a PC: kernels for its processor, blocks of samples.
//!
//! [`HostModel`] prepares a checked image once: each layer's constants are repacked for the processor's vector instructions. A layer without a kernel
//! here is run by the portable one. Results are the same bytes.

#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, unused_variables, reason = "the portable kernels run on other processors")
)]

pub(crate) mod matrix;
pub(crate) mod processor;
pub(crate) mod rows;
pub(crate) mod taps;
pub(crate) mod unpack;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::arena::{Arenas, Io, Samples, Shared};
use crate::node::Node;
use crate::{CheckedImage, ops};
use processor::{Instructions, Task};

pub use processor::Processor;

/// A layer that is prepared for the processor.
pub(crate) trait HostLayer: Send + Sync {
    /// Runs the layer's node for all samples. `scratch` may have any contents and any length.
    fn run(&self, node: &Node<'_>, samples: Samples<'_>, scratch: &mut Vec<u8>);
}

/// A checked image, prepared for the processor.
///
/// ```no_run
/// # let bytes: &[u8] = &[];
/// use nano_core::{Arenas, CheckedImage, HostModel, ops};
/// let checked = CheckedImage::new(bytes, ops::ALL)?;
/// let model = HostModel::new(&checked);
/// let mut memory = vec![0u32; Arenas::length(&checked, 16).div_ceil(4)];
/// let memory = zerocopy::transmute_mut!(&mut memory[..]);
/// let mut arenas = Arenas::new(checked, memory, 16)?;
/// for sample in 0..16 {
///     arenas.input(sample, 0).fill(sample as i8);
/// }
/// model.run(&mut arenas, &mut Vec::new(), |_, _| {});
/// println!("{:?}", arenas.output(15, 0));
/// # Ok::<(), nano_core::Error>(())
/// ```
pub struct HostModel {
    /// For each node; `None` where the portable kernel runs.
    layers: Vec<Option<Box<dyn HostLayer>>>,
}

impl HostModel {
    /// Prepares an image for this machine's best processor instructions.
    pub fn new(checked: &CheckedImage<'_>) -> Self {
        HostModel::on(checked, Processor::all().next())
    }

    /// Prepares an image for a processor; with `None`, the portable kernels run all layers.
    pub fn on(checked: &CheckedImage<'_>, processor: Option<Processor>) -> Self {
        let layers = checked.image().nodes().map(|node| ops::host(&node, checked.kernels(), processor?));
        HostModel { layers: layers.collect() }
    }

    /// Runs all nodes for the samples in `arenas`, which are bound to the same image; calls `after(index, outputs, arenas)` after each.
    pub fn run(&self, arenas: &mut Arenas<'_>, scratch: &mut Vec<u8>, mut after: impl FnMut(usize, &Arenas<'_>)) {
        let image = *arenas.checked().image();
        for (index, (node, layer)) in image.nodes().zip(&self.layers).enumerate() {
            let mut samples = arenas.samples(&node);
            match layer {
                Some(layer) => layer.run(&node, samples, scratch),
                None => samples.run_portable(),
            }
            after(index, arenas);
        }
    }
}

/// Whether multipliers of the one-pass form are twice a mantissa, as the host's kernels need them. The writer makes no others.
pub(crate) fn are_even<'a>(multipliers: impl IntoIterator<Item = &'a i32>) -> bool {
    multipliers.into_iter().all(|multiplier| multiplier % 2 == 0)
}

/// The code of a portable kernel, compiled for a processor: `run` must be inlined.
pub(crate) fn compiled<F>(processor: Processor, run: F) -> Box<dyn HostLayer>
where
    F: Fn(&Node<'_>, Io<'_>) + Send + Sync + 'static,
{
    Box::new(Compiled { processor, run })
}

/// [`compiled`], of a kernel that runs in place.
pub(crate) fn compiled_in_place<F>(processor: Processor, run: F) -> Box<dyn HostLayer>
where
    F: Fn(&Node<'_>, Shared<'_>) + Send + Sync + 'static,
{
    Box::new(CompiledInPlace { processor, run })
}

struct Compiled<F> {
    processor: Processor,
    run: F,
}

impl<F: Fn(&Node<'_>, Io<'_>) + Send + Sync> HostLayer for Compiled<F> {
    fn run(&self, node: &Node<'_>, mut samples: Samples<'_>, _: &mut Vec<u8>) {
        samples.each(|_, io| self.processor.run(Call(|| (self.run)(node, io))));
    }
}

struct CompiledInPlace<F> {
    processor: Processor,
    run: F,
}

impl<F: Fn(&Node<'_>, Shared<'_>) + Send + Sync> HostLayer for CompiledInPlace<F> {
    fn run(&self, node: &Node<'_>, mut samples: Samples<'_>, _: &mut Vec<u8>) {
        samples.each_in_place(|memory| self.processor.run(Call(|| (self.run)(node, memory))));
    }
}

struct Call<F>(F);

impl<F: FnOnce()> Task for Call<F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<I: Instructions>(self) {
        (self.0)();
    }
}
