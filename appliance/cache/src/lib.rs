//! The build cache service over HTTP.
