//! Flashing images that are composed here: the layout, every refusal, every cut.

mod compose;
mod cuts;
mod faults;
mod golden;
mod loops;
mod refusals;
mod usage;
mod whole;

use super::FlashArgs;
