//! Images from a file, a flash or an attacker: each is refused with a typed error, or runs.

mod aggregates;
mod builder;
mod checks;
mod choice;
mod classifier;
mod constants_in_ram;
mod heads;
mod history;
#[cfg(feature = "host")]
mod host;
mod layers;
mod loading;
mod matmul;
mod memory;
mod moves;
mod mutate;
mod mutations;
mod overflow;
mod overlays;
mod pairs;
mod parameters;
mod part;
mod places;
mod reachable;
mod residual;
mod runs;
mod same_head;
mod sharing;
mod winograd;
mod writing;
