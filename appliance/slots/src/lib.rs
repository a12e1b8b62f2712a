//! Boot slots: counting, health and blessing of a boot.
