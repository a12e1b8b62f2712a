//! Metro's `HttpStore`: keys of hexadecimal digits, bodies without a declared length. Known by them,
//! or by a base that ends with `/metro`.
//!
//! | | GET | PUT |
//! |---|---|---|
//! | well | 200 | 201, 200 if the object is there |
//! | nothing there | 404 | |
//! | no credential, none for this | 401, 403 | 401, 403 |
//! | overload, authorization does not answer | 404 | 429, 503 |
//! | disk | 404 | 507 |
//!
//! It throws at anything but 2xx and 404.

use super::statuses::{PLAIN, Statuses};

pub(super) const STATUSES: Statuses = Statuses {
    throttled: (404, 429),
    unavailable: (404, 503),
    busy: (404, 429),
    ..PLAIN
};
