//! Port 80: `/up`, challenges of ACME, and the way to HTTPS for everything else.

use http::header::{HOST, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode};

use crate::answer::{empty, message, not_found, text};
use crate::body::Body;
use crate::router::{is_up, up};
use crate::server::Shared;

pub(crate) fn answer<B>(shared: &Shared, request: &Request<B>) -> Response<Body> {
    if is_up(request) {
        return up(shared);
    }
    if let Some(answer) = shared.certificates.challenge(request.uri().path()) {
        return text(StatusCode::OK, answer);
    }
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    if request.uri().path() == "/metrics" {
        return not_found();
    }
    let named = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let host = named
        .and_then(host_name)
        .unwrap_or(&shared.settings.names[0]);
    let Ok(location) = HeaderValue::from_str(&format!("https://{host}{path}")) else {
        return message(StatusCode::BAD_REQUEST, "Bad Request");
    };
    let mut response = empty(StatusCode::MOVED_PERMANENTLY);
    response.headers_mut().insert(LOCATION, location);
    response
}

/// The name or address in a `Host` header, without the port. `None`: it is neither.
fn host_name(host: &str) -> Option<&str> {
    if host.starts_with('[') {
        let end = host.find(']')?;
        let address = &host[1..end];
        address.parse::<std::net::Ipv6Addr>().ok()?;
        return Some(&host[..=end]);
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    (!name.is_empty() && name.len() <= 253 && name.bytes().all(fits)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn hosts() {
        assert_eq!(host_name("a-b.example:80"), Some("a-b.example"));
        assert_eq!(host_name("192.0.2.1"), Some("192.0.2.1"));
        assert_eq!(host_name("[2001:db8::1]:80"), Some("[2001:db8::1]"));
        for bad in ["", ":80", "a/b", "a@b", "[x]", "[::1", "a b", "a:b:c"] {
            assert_eq!(host_name(bad), None, "{bad}");
        }
    }
}
