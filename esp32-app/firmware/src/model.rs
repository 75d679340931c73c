//! The exported model.

include!(env!("TORCH_NANO_MODEL_RS"));
