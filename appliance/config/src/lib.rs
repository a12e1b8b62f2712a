//! Typed configuration of the image and its fleet: one definition for the builder and the daemons.
