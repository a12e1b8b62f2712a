//! What is counted about authorization.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{Counter, Text};

/// How a request was authorized.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    /// By what the server had said.
    Cache,
    /// By the token itself.
    Jwt,
    /// By what the server just said.
    Server,
    /// By the configuration.
    Configured,
}

const METHODS: [&str; 4] = ["cache", "jwt", "server", "configured"];
/// Reasons of `server_error`.
const REASONS: [&str; 7] = [
    "transport",
    "server",
    "throttled",
    "status",
    "answer",
    "unauthorized",
    "forbidden",
];
/// Upper bounds in milliseconds.
const BUCKETS: [u64; 9] = [10, 25, 50, 100, 250, 500, 1000, 2500, 5000];
/// The same complaint is made this often at most.
const COMPLAINTS: Duration = Duration::from_secs(60);

/// A histogram of milliseconds.
#[derive(Debug, Default)]
pub(super) struct Durations {
    count: Counter,
    sum: Counter,
    buckets: [Counter; BUCKETS.len()],
}

impl Durations {
    pub(super) fn observe(&self, duration: Duration) {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.count.add(1);
        self.sum.add(milliseconds);
        if let Some(at) = BUCKETS.iter().position(|bound| milliseconds <= *bound) {
            self.buckets[at].add(1);
        }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct AuthMetrics {
    pub(super) cache_hits: Counter,
    pub(super) cache_misses: Counter,
    pub(super) server_requests: Counter,
    pub(super) server_durations: Durations,
    pub(super) throttled: Counter,
    authorized: [Counter; METHODS.len()],
    errors: [Counter; REASONS.len()],
    said: Mutex<Option<Instant>>,
}

impl AuthMetrics {
    pub(super) fn authorized(&self, method: Method) {
        self.authorized[method as usize].add(1);
    }

    pub(super) fn server_error(&self, reason: &str) {
        if let Some(at) = REASONS.iter().position(|known| *known == reason) {
            self.errors[at].add(1);
        }
    }

    /// Logs that the server does not answer, but not for each of a thousand requests.
    pub(super) fn complain(&self, words: &str) {
        let now = Instant::now();
        let mut last = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now - last >= COMPLAINTS) {
            *last = Some(now);
            log::warn!(
                "the Tuist server does not say who may: {words}; what it said in the last 25 \
                 minutes goes on, other requests are answered with 503"
            );
        }
    }

    /// Writes them; `held`: tokens whose answers are kept.
    pub(super) fn write(&self, text: &mut Text, held: usize) {
        for (name, help, counter) in [
            (
                "cache_hit_total",
                "Requests decided by a kept answer.",
                &self.cache_hits,
            ),
            (
                "cache_miss_total",
                "Requests that had to ask the server.",
                &self.cache_misses,
            ),
            (
                "server_request_total",
                "Questions to the server.",
                &self.server_requests,
            ),
            (
                "throttled_total",
                "Requests of sources that tried too many tokens.",
                &self.throttled,
            ),
        ] {
            text.family(&format!("cache_auth_{name}"), "counter", help);
            text.line("", &[], counter.get());
        }
        text.family(
            "cache_auth_server_error_total",
            "counter",
            "Questions that gave no access.",
        );
        for (reason, counter) in REASONS.iter().zip(&self.errors) {
            text.line("", &[("reason", reason)], counter.get());
        }
        text.family(
            "cache_auth_authorized_total",
            "counter",
            "Requests allowed.",
        );
        for (method, counter) in METHODS.iter().zip(&self.authorized) {
            text.line("", &[("method", method)], counter.get());
        }
        text.family(
            "larder_cache_auth_held_tokens",
            "gauge",
            "Tokens whose answers are kept.",
        );
        text.line("", &[], held);
        text.family(
            "cache_auth_server_duration_milliseconds",
            "histogram",
            "Milliseconds until the server answered.",
        );
        let durations = &self.server_durations;
        let mut sum = 0;
        for (bound, counter) in BUCKETS.iter().zip(&durations.buckets) {
            sum += counter.get();
            text.line("_bucket", &[("le", &bound.to_string())], sum);
        }
        text.line("_bucket", &[("le", "+Inf")], durations.count.get());
        text.line("_sum", &[], durations.sum.get());
        text.line("_count", &[], durations.count.get());
    }
}
