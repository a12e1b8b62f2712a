//! Debian packages: lock, resolve, verify, download.
