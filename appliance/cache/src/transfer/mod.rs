//! Objects in and out of the store, whichever protocol asks.

pub(crate) mod download;
pub(crate) mod json;
pub(crate) mod upload;
