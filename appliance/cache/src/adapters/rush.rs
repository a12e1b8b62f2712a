//! Rush: free keys, known by a base that ends with `/rush`.
//!
//! | | GET | PUT |
//! |---|---|---|
//! | well | 200 | 201, 200 if the object is there |
//! | nothing there | 404 | |
//! | no credential, none for this | 401, 403 | 401, 403 |
//! | overload, authorization does not answer | 404 | 429, 503 |
//! | disk | 404 | 507 |
//!
//! It waits for seconds and tries again at anything but 2xx and 404, and asks for a login at 401
//! and 403.

use super::statuses::{PLAIN, Statuses};

pub(super) const STATUSES: Statuses = Statuses {
    throttled: (404, 429),
    unavailable: (404, 503),
    busy: (404, 429),
    ..PLAIN
};
