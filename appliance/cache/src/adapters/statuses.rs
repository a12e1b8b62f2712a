//! What each kind of client is answered: one table a client, because the status that one survives
//! makes another fail a build.

use http::header::RETRY_AFTER;
use http::{Response, StatusCode};

use crate::answer::{empty, text};
use crate::auth::{Action, Denial};
use crate::body::Body;
use crate::transfer::upload::{Fault, Landed};
use crate::transport::budget::Overloaded;

/// The status where objects are read, and the one where they are stored.
pub(crate) type Pair = (u16, u16);

/// The statuses of one kind of client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statuses {
    /// PUT: the object is stored.
    pub(crate) stored: u16,
    /// PUT: there was one already.
    pub(crate) exists: u16,
    /// No credential, or one that is not valid.
    pub(crate) credential: Pair,
    /// The credential is good, and not for this.
    pub(crate) forbidden: Pair,
    /// The account has to pay first.
    pub(crate) payment: Pair,
    /// Too many failed credentials of one source.
    pub(crate) throttled: Pair,
    /// Who would know whether the credential is good does not answer.
    pub(crate) unavailable: Pair,
    /// Too much at once.
    pub(crate) busy: Pair,
    /// PUT: larger than allowed.
    pub(crate) too_large: u16,
    /// PUT: the bytes are not those that were declared, or did not come whole.
    pub(crate) wrong: u16,
    /// PUT: the disk failed. Reading, that is a miss.
    pub(crate) disk: u16,
}

/// What HTTP says.
pub(crate) const PLAIN: Statuses = Statuses {
    stored: 201,
    exists: 200,
    credential: (401, 401),
    forbidden: (403, 403),
    payment: (402, 402),
    throttled: (429, 429),
    unavailable: (503, 503),
    busy: (429, 429),
    too_large: 413,
    wrong: 400,
    disk: 507,
};

fn of(pair: Pair, action: Action) -> u16 {
    match action {
        Action::Read => pair.0,
        Action::Write => pair.1,
    }
}

/// A response with a text that people read. 404 is a miss and says nothing.
pub(crate) fn say(status: u16, why: &str) -> Response<Body> {
    // All of them are written in tables.
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match status {
        StatusCode::NOT_FOUND => empty(status),
        status => text(status, format!("{why}\n")),
    }
}

impl Statuses {
    /// The answer to a request that may not.
    pub(crate) fn denied(&self, action: Action, denial: &Denial) -> Response<Body> {
        let pair = match denial {
            Denial::Missing | Denial::Unauthorized => self.credential,
            Denial::Forbidden => self.forbidden,
            Denial::Payment(_) => self.payment,
            Denial::Throttled { .. } => self.throttled,
            Denial::Unavailable { .. } => self.unavailable,
        };
        let mut response = say(of(pair, action), denial.text());
        if response.status() != StatusCode::NOT_FOUND {
            denial.headers(&mut response);
        }
        response
    }

    /// The answer when there is too much at once.
    pub(crate) fn busy(&self, action: Action, overloaded: Overloaded) -> Response<Body> {
        let mut response = say(of(self.busy, action), "Too busy. Please try again later.");
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            let seconds = overloaded.retry_after.as_secs().max(1);
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }

    /// The answer to an upload.
    pub(crate) fn put(&self, landed: Result<Landed, Fault>) -> Response<Body> {
        let (status, why) = match landed {
            Ok(Landed::Stored) => (self.stored, "Stored".into()),
            Ok(Landed::Exists) => (self.exists, "There already".into()),
            Err(Fault::TooLarge { limit }) => (
                self.too_large,
                format!("Larger than {limit} bytes, the most that is possible"),
            ),
            Err(Fault::Slow) => (self.wrong, "The body came too slowly".into()),
            Err(Fault::Truncated) => (self.wrong, "The body broke off".into()),
            Err(Fault::Digest { .. }) => (self.wrong, "The body has another SHA-256".into()),
            Err(Fault::TooLong) => (self.wrong, "The key is too long".into()),
            Err(Fault::Disk) => (self.disk, "Cannot store".into()),
        };
        if landed.is_ok() {
            return empty(StatusCode::from_u16(status).unwrap_or(StatusCode::OK));
        }
        say(status, &why)
    }
}
