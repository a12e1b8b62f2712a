//! Names that are fixed for the life of a machine.

/// Label of a file system that came with the image and was never used: it may be made anew.
pub const PRISTINE: &str = "larder-pristine";
/// Label of the state file system (`/var`) once it is made.
pub const LABEL_STATE: &str = "larder-state";
/// Label of the `/cas` file system once it is made.
pub const LABEL_CAS: &str = "larder-cas";
/// Name in the partition table of the partition that holds `/var`.
pub const STATE_PARTITION: &str = "state";
/// Name in the partition table of the partition that holds `/cas`.
pub const CAS_PARTITION: &str = "cas";
