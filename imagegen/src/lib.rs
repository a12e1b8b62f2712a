//! Builds, checks, inspects and writes Larder images.
