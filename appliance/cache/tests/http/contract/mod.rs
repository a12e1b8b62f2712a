//! The routes of Tuist: one file for each section of their contract.

mod clean;
mod digest;
mod errors;
mod gradle;
mod health;
mod keyvalue;
mod module;
mod registry;
mod xcode;
