//! Helpers for Go's `GOCACHEPROG`: free keys below `/go/`. They are programs of their own, so that
//! what HTTP says is right for them.
//!
//! The statuses are those of [`super::free`].

use super::statuses::{PLAIN, Statuses};

pub(super) const STATUSES: Statuses = PLAIN;
