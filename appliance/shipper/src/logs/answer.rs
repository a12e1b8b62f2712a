//! What an answer of Loki means for the lines of the request.

use std::time::Duration;

use crate::http::Answer;

/// What to do next with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The lines are stored.
    Stored,
    /// The receiver kept some lines and refused this many (`None`: it did not say), for ever.
    Refused(&'static str, Option<u64>),
    /// Not now: ask again, at the earliest after this time if it said so.
    Later(&'static str, Option<Duration>),
    /// Something that a person has to put right; ask again now and then.
    Blocked(&'static str),
    /// The request is too large.
    TooLarge,
    /// The tenant has too many streams already.
    TooManyStreams,
    /// 400 in words that are not Loki's: something in between may be confused.
    Unclear,
}

impl Verdict {
    /// By the observed behaviour of Loki (facts/logs-and-metrics.md 1.2, 1.3).
    pub(super) fn of(answer: &Answer) -> Self {
        let (status, text) = match answer {
            Answer::Failure(_) => return Self::Later("network", None),
            Answer::Response { status, text, .. } => (*status, text.as_str()),
        };
        match status {
            204 => Self::Stored,
            // Compatible receivers say 200 with nothing; a login page says more.
            200..=299 if text.trim().is_empty() => Self::Stored,
            200..=299 => Self::Blocked("not a receiver of logs"),
            300..=399 => Self::Blocked("redirected"),
            400 => match refusal(text) {
                Some(reason) => Self::Refused(reason, ignored(text)),
                None => Self::Unclear,
            },
            401 | 403 => Self::Blocked("credentials refused"),
            413 => Self::TooLarge,
            422 => Self::Refused("invalid", None),
            429 if text.contains("stream limit") => Self::TooManyStreams,
            408 | 425 | 429 => Self::Later(
                if status == 429 {
                    "rate limited"
                } else {
                    "time-out"
                },
                answer.retry_after(),
            ),
            500..=599 => Self::Later("receiver failed", answer.retry_after()),
            _ => Self::Blocked("not a receiver of logs"),
        }
    }
}

/// Why lines were refused, in a few words fit for a label. `None`: the words are not Loki's.
fn refusal(text: &str) -> Option<&'static str> {
    [
        ("too far behind", "too far behind"),
        ("timestamp too old", "too old"),
        ("timestamp too new", "too new"),
        ("ax entry size", "line too long"),
        ("structured metadata", "metadata too large"),
        ("label", "labels refused"),
        ("entry out of order", "out of order"),
        ("total ignored", "refused"),
        ("snappy", "not understood"),
        ("proto:", "not understood"),
    ]
    .iter()
    .find(|(words, _)| text.contains(words))
    .map(|&(_, reason)| reason)
}

/// The sum of the numbers in "total ignored: N out of M", of which there is one a stream.
fn ignored(text: &str) -> Option<u64> {
    let counts = text.split("total ignored: ").skip(1).map(|rest| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<u64>().ok()
    });
    counts.fold(None, |sum, count| {
        Some(sum.unwrap_or(0).saturating_add(count?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, text: &str) -> Verdict {
        Verdict::of(&Answer::Response {
            status,
            retry_after: None,
            text: text.into(),
        })
    }

    #[test]
    fn statuses_as_observed() {
        let behind = "entry with timestamp 2026-11-25 10:00:00 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: …, oldest acceptable timestamp is: …',\nuser 'fake', total ignored: 1 out of 2 for stream: {a=\"b\"}";
        assert_eq!(verdict(204, ""), Verdict::Stored);
        assert_eq!(verdict(200, ""), Verdict::Stored);
        assert_eq!(
            verdict(200, "<html>log in"),
            Verdict::Blocked("not a receiver of logs")
        );
        assert_eq!(verdict(302, ""), Verdict::Blocked("redirected"));
        assert_eq!(
            verdict(400, behind),
            Verdict::Refused("too far behind", Some(1))
        );
        assert_eq!(verdict(400, "<html>bad request"), Verdict::Unclear);
        assert_eq!(
            verdict(401, "no org id"),
            Verdict::Blocked("credentials refused")
        );
        assert_eq!(verdict(404, ""), Verdict::Blocked("not a receiver of logs"));
        assert_eq!(verdict(413, ""), Verdict::TooLarge);
        assert_eq!(
            verdict(422, "at least one valid stream is required"),
            Verdict::Refused("invalid", None)
        );
        assert_eq!(
            verdict(429, "Ingestion rate limit exceeded"),
            Verdict::Later("rate limited", None)
        );
        assert_eq!(
            verdict(429, "Maximum active stream limit exceeded"),
            Verdict::TooManyStreams
        );
        assert_eq!(verdict(503, ""), Verdict::Later("receiver failed", None));
        let failure = Answer::Failure("connection refused".into());
        assert_eq!(Verdict::of(&failure), Verdict::Later("network", None));
    }
}
