//! Disks as the appliance meets them: GPT, superblocks, first mkfs, fsck, growth, mounts.
