//! Metrics of the fetcher of secrets, from the status that it writes.

use std::path::PathBuf;

use secrets::fetcher::{STATUS, Status};

use super::sample::{Kind, Sink};
use crate::clock::Clock;

/// The fetcher of secrets.
#[derive(Clone, Debug)]
pub struct Secrets {
    status: PathBuf,
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            status: STATUS.into(),
        }
    }
}

impl Secrets {
    /// Collects them; a machine without a fetcher has the names, and no samples.
    pub fn collect(&self, sink: &mut dyn Sink) {
        let status = std::fs::read(&self.status).ok();
        let status = status.and_then(|text| serde_json::from_slice::<Status>(&text).ok());
        let now = crate::clock::SystemClock::new().now() / 1_000_000_000;
        let now = now.try_into().unwrap_or_default();
        samples(&status.unwrap_or_default(), now, sink);
    }
}

fn samples(status: &Status, now: u64, sink: &mut dyn Sink) {
    use Kind::{Counter, Gauge};
    sink.family("larder_secret_state", Gauge);
    for secret in &status.secrets {
        let required = if secret.required { "true" } else { "false" };
        let labels = [
            ("required", required),
            ("secret", &secret.name),
            ("state", &secret.state),
        ];
        sink.sample(&labels, 1.0);
    }
    let since = now.saturating_sub(status.time);
    sink.family("larder_secret_age_seconds", Gauge);
    for secret in &status.secrets {
        if let Some(age) = secret.age {
            sink.sample(&[("secret", &secret.name)], (age + since) as f64);
        }
    }
    sink.family("larder_secret_error", Gauge);
    for secret in &status.secrets {
        if let Some(class) = secret.error {
            let class = class.to_string();
            sink.sample(&[("secret", &secret.name), ("class", &class)], 1.0);
        }
    }
    sink.family("larder_secrets_requests_total", Counter);
    for provider in &status.providers {
        sink.sample(
            &[("provider", &provider.provider)],
            provider.requests as f64,
        );
    }
    sink.family("larder_secrets_requests_left", Gauge);
    for provider in &status.providers {
        sink.sample(&[("provider", &provider.provider)], provider.budget as f64);
    }
    sink.family("larder_secrets_served_total", Counter);
    for (result, count) in &status.served {
        sink.sample(&[("result", result)], *count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::super::TextSink;
    use super::*;

    #[test]
    fn a_status_becomes_samples() {
        let text = r#"{"time":100,"secrets":[
            {"name":"jwt","reference":"op://v/i/f","provider":"1Password Connect",
             "state":"last-known-good","age":60,"required":true,"error":"unavailable","message":"x"},
            {"name":"loki","reference":"op://v/i/g","provider":"1Password Connect",
             "state":"missing","age":null,"required":false,"error":null,"message":null}],
            "providers":[{"provider":"1Password Connect","budget":599,"requests":3}],
            "served":{"value":2,"denied":1}}"#;
        let folder = tempfile::tempdir().unwrap();
        let status = folder.path().join("status.json");
        let secrets = Secrets {
            status: status.clone(),
        };
        let mut sink = TextSink::default();
        secrets.collect(&mut sink);
        let sampled = |line: &str| !line.starts_with('#');
        assert!(!sink.text.lines().any(sampled), "{}", sink.text);
        std::fs::write(&status, text).unwrap();
        secrets.collect(&mut sink);
        assert!(
            sink.text.contains("larder_secret_age_seconds"),
            "{}",
            sink.text
        );

        let mut sink = TextSink::default();
        samples(&serde_json::from_str(text).unwrap(), 130, &mut sink);
        for line in [
            r#"larder_secret_state{required="true",secret="jwt",state="last-known-good"} 1"#,
            r#"larder_secret_state{required="false",secret="loki",state="missing"} 1"#,
            r#"larder_secret_age_seconds{secret="jwt"} 90"#,
            r#"larder_secret_error{secret="jwt",class="unavailable"} 1"#,
            r#"larder_secrets_requests_total{provider="1Password Connect"} 3"#,
            r#"larder_secrets_requests_left{provider="1Password Connect"} 599"#,
            r#"larder_secrets_served_total{result="denied"} 1"#,
        ] {
            assert!(
                sink.text.lines().any(|l| l == line),
                "{line}: {}",
                sink.text
            );
        }
    }
}
