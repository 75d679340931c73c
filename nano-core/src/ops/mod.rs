//! The operators, one file each. What an operator computes is written in its file and nowhere else.

mod channels;
mod window;

macro_rules! registry {
    ($($file:ident :: $entry:ident),+ $(,)?) => {
        $(mod $file; pub use $file::$entry;)+

        /// Every operator of this crate.
        pub const ALL: &[crate::Operator] = &[$($file::$entry),+];
    };
}

registry! {
    conv2d::CONV2D,
    depthwise_conv2d::DEPTHWISE_CONV2D,
    fully_connected::FULLY_CONNECTED,
    add::ADD,
    max_pool2d::MAX_POOL2D,
    average_pool2d::AVERAGE_POOL2D,
    table::TABLE,
    requantize::REQUANTIZE,
    softmax::SOFTMAX,
}

#[cfg(feature = "alloc")]
pub use add::AddParameters;
#[cfg(feature = "alloc")]
pub use softmax::SoftmaxParameters;

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn codes_and_names_are_unique() {
        for (index, operator) in ALL.iter().enumerate() {
            assert!(ALL[..index].iter().all(|other| other.code != operator.code && other.name != operator.name));
        }
    }
}
