//! What a caller may want to show while it waits.

/// Receives progress; all methods do nothing unless overridden. Called from several threads.
pub trait Progress: Send + Sync {
    /// A step begins, such as `resolving`.
    fn step(&self, _what: &str) {}
    /// Bytes downloaded of those that must be; `name` is what the last ones belong to.
    fn bytes(&self, _done: u64, _total: u64, _name: &str) {}
    /// Something that the user should read but that is no error.
    fn warning(&self, _text: &str) {}
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
