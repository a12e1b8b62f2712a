//! What a handler is told about a request.

use std::net::IpAddr;

use http::Method;
use http::header::{AsHeaderName, HeaderMap};

use crate::auth::{Action, Caller};
use crate::server::Shared;
use crate::target::{Query, Undecodable};

/// A request without its body.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) method: &'a Method,
    /// As it came: percent-encoded.
    pub(crate) path: &'a str,
    pub(crate) query: Result<Query<'a>, Undecodable>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) peer: IpAddr,
    /// Id of the request.
    pub(crate) id: &'a str,
}

impl Call<'_> {
    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller {
            headers: self.headers,
            peer: self.peer,
            request_id: self.id,
        }
    }

    /// What the method does to objects.
    pub(crate) fn action(&self) -> Action {
        // RFC 4918: PROPFIND reads.
        let reads = matches!(*self.method, Method::GET | Method::HEAD)
            || self.method.as_str() == "PROPFIND";
        if reads { Action::Read } else { Action::Write }
    }

    /// A header's value, if it is there and is text.
    pub(crate) fn text(&self, name: impl AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.as_ref().ok()?.get(name)
    }
}
