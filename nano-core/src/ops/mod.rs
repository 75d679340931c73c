//! The operators, one file each. What an operator computes is written in its file and nowhere else.

mod channels;
mod pairwise;
#[cfg(feature = "alloc")]
mod pool_cost;
mod recurrent;
mod sums;
mod unary;
pub(crate) mod window;

macro_rules! registry {
    ($($kind:ident $file:ident :: $entry:ident),+ $(,)?) => {
        $(registry!(@$kind $file);)+
        $(pub use $file::$entry;)+

        /// Every kernel of this crate, each where its id says.
        pub const ALL: &[crate::Kernel] = &[$($file::$entry),+];
    };
    (@operator $file:ident) => { mod $file; };
    (@kernel $file:ident) => {};
}

// An operator's file with its first kernel, or a further kernel there.
registry! {
    operator conv2d::CONV2D,
    operator depthwise_conv2d::DEPTHWISE_CONV2D,
    operator fully_connected::FULLY_CONNECTED,
    operator add::ADD,
    operator max_pool2d::MAX_POOL2D,
    operator average_pool2d::AVERAGE_POOL2D,
    operator table::TABLE,
    operator requantize::REQUANTIZE,
    operator softmax::SOFTMAX,
    kernel fully_connected::FULLY_CONNECTED_PAIRS,
    operator history::HISTORY,
    kernel conv2d::CONV2D_ADD,
    operator move_data::MOVE,
    operator mul::MUL,
    operator sub::SUB,
    operator conv_transpose2d::CONV_TRANSPOSE2D,
    operator concat::CONCAT,
    kernel move_data::MOVE_VIEW,
    operator matmul::MATMUL,
    operator layer_norm::LAYER_NORM,
    kernel requantize::REQUANTIZE_INT8_TO_INT16,
    kernel requantize::REQUANTIZE_INT16_TO_INT8,
    kernel requantize::REQUANTIZE_INT16,
    kernel requantize::REQUANTIZE_INT32_TO_INT8,
    kernel requantize::REQUANTIZE_INT32_TO_INT16,
    operator lstm::LSTM,
    operator gru::GRU,
    operator rnn::RNN,
    operator resize_bilinear::RESIZE_BILINEAR,
    operator log_softmax::LOG_SOFTMAX,
    kernel fully_connected::FULLY_CONNECTED_INT16,
    kernel add::ADD_INT16,
    kernel sub::SUB_INT16,
    kernel mul::MUL_INT16,
    kernel max_pool2d::MAX_POOL2D_INT16,
    kernel average_pool2d::AVERAGE_POOL2D_INT16,
    kernel table::TABLE_INT16,
    kernel conv2d::CONV2D_INT16,
    kernel depthwise_conv2d::DEPTHWISE_CONV2D_INT16,
    operator argmax::ARGMAX,
    operator prelu::PRELU,
    operator masked_softmax::MASKED_SOFTMAX,
    operator embedding::EMBEDDING,
    kernel conv2d::CONV2D_PAIRS,
    kernel conv2d::CONV2D_ONE_PIXEL,
    kernel conv2d::CONV2D_ADD_PAIRS,
    kernel conv2d::CONV2D_NARROW,
    kernel depthwise_conv2d::DEPTHWISE_CONV2D_LINES,
    kernel depthwise_conv2d::DEPTHWISE_CONV2D_LINES_INT16,
    kernel conv2d::CONV2D_DIRECT,
    kernel conv2d::CONV2D_DIRECT_INT16,
    kernel conv2d::CONV2D_WINOGRAD4,
    kernel conv2d::CONV2D_WINOGRAD4_TRANSFORMED,
    kernel conv2d::CONV2D_ADD_WINOGRAD4,
    kernel conv2d::CONV2D_WINOGRAD2,
    kernel conv2d::CONV2D_ADD_WINOGRAD2,
    kernel conv_transpose2d::CONV_TRANSPOSE2D_DEPTHWISE,
    kernel conv2d::CONV2D_LINES,
    kernel conv2d::CONV2D_LINES_INT16,
}

/// Prepares a node of a checked image for the processor; `None` if no kernel here computes it.
#[cfg(feature = "host")]
pub(crate) fn host(
    node: &crate::Node<'_>,
    kernels: &[crate::Kernel],
    processor: crate::host::processor::Processor,
) -> Option<alloc::boxed::Box<dyn crate::host::HostLayer>> {
    let kernel = node.kernel(kernels)?;
    match kernel.operator.name {
        "conv2d" => conv2d::host::prepare(node, kernel.name, processor),
        "conv2d_add" => conv2d::host::prepare_add(node, kernel.name, processor),
        "depthwise_conv2d" => depthwise_conv2d::host::prepare(node, kernel.name, processor),
        "average_pool2d" => Some(average_pool2d::host(node, processor)),
        "mul" => Some(mul::host(node, processor)),
        "sub" => Some(sub::host(node, processor)),
        "max_pool2d" => Some(max_pool2d::host(node, processor)),
        "add" => sums::host::prepare(node, kernel.name, processor),
        "fully_connected" => fully_connected::host::prepare(node, kernel.name, processor),
        _ => None,
    }
}

/// The operators that the writer makes of two layers.
#[cfg(feature = "alloc")]
pub(crate) const FUSIONS: &[crate::image::Fusion] = &[conv2d::FUSION];

#[cfg(feature = "alloc")]
pub use channels::pack::ONE_PASS_LIMIT;
#[cfg(feature = "alloc")]
pub use layer_norm::{LayerNormLimit, LayerNormParameters, NormalizedChannel};
#[cfg(feature = "alloc")]
pub use log_softmax::LogSoftmaxParameters;
#[cfg(feature = "alloc")]
pub use softmax::SoftmaxParameters;
#[cfg(feature = "alloc")]
pub use sums::AddParameters;

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn ids_and_names_are_unique_and_ids_are_places() {
        for (index, kernel) in ALL.iter().enumerate() {
            assert_eq!(usize::from(kernel.id), index + 1);
            assert!(ALL[..index].iter().all(|other| other.name != kernel.name));
            assert!(kernel.name.starts_with(kernel.operator.name));
        }
    }
}
