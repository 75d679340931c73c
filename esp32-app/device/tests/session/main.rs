//! A session over a byte stream in memory: its answers, its refusals, and its behaviour after damaged input.

#[path = "../../../../nano-core/tests/images/builder/mod.rs"]
mod builder;
mod corrupted;
mod every_request;
mod frames;
mod graph;
mod guard;
mod learning;
mod local;
mod memory;
#[path = "../../../../nano-core/tests/images/mutate.rs"]
mod mutate;
#[path = "../storage/nor.rs"]
mod nor;
mod power_cuts;
mod program;
mod refusals;
mod refused_states;
mod requests;
mod saving;
mod sensing;
mod spare_copy;
mod stream;
mod tasks;
mod training;
mod updates;
