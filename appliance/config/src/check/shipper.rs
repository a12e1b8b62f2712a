//! `shipper.toml`.

use crate::Shipper;
use crate::load::{File, Report, place};

impl File for Shipper {
    const NAME: &'static str = "shipper.toml";

    fn check(&self, report: &mut Report) {
        for (field, seconds) in [
            ("service_seconds", self.metrics.service_seconds),
            ("host_seconds", self.metrics.host_seconds),
        ] {
            for (at, seconds) in seconds.iter().enumerate() {
                if !(5..=3600).contains(seconds) {
                    report.wrong(
                        place!["metrics", field, at],
                        format!("{seconds} seconds between two scrapes"),
                        "5 to 3600",
                    );
                }
            }
        }
        for name in self.labels.keys() {
            let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let digit = |c: char| c.is_ascii_digit();
            if ["instance", "job"].contains(&name.as_str()) {
                report.wrong(
                    place!["labels", name],
                    format!("the label {name} is set by the shipper"),
                    "another name",
                );
            } else if name.is_empty()
                || name.starts_with("__")
                || name.starts_with(digit)
                || !name.chars().all(valid)
            {
                report.wrong(
                    place!["labels", name],
                    format!("{name:?} is no name of a label"),
                    "letters, digits and _, beginning with a letter",
                );
            }
        }
        let service_url = Some(self.metrics.service_url.clone());
        for (place, url) in [
            (place!["proxy"], &self.proxy),
            (place!["logs", "url"], &self.logs.url),
            (place!["metrics", "url"], &self.metrics.url),
            (place!["metrics", "service_url"], &service_url),
        ] {
            // What is before an @ may be a password; the message must not show it.
            if url.as_ref().is_some_and(|url| url.contains('@')) {
                report.wrong(place, "credentials in an address", "credentials of systemd");
            } else if url
                .as_ref()
                .is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://"))
            {
                report.wrong(place, "no address", "http:// or https:// and a host");
            }
        }
        for (field, text) in [
            ("service_job", &self.logs.service_job),
            ("service_app", &self.logs.service_app),
            ("host_job", &self.logs.host_job),
            ("host_app", &self.logs.host_app),
        ] {
            if text.is_empty() || text.len() > 1024 {
                report.wrong(
                    place!["logs", field],
                    "a label that the receiver would refuse",
                    "1 to 1024 bytes",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::Shipper;

    const TEXT: &str = include_str!("../../../../configs/shipper.toml");

    #[test]
    fn mistakes_are_named() {
        let parse = |text: &str| Shipper::parse(Path::new("shipper.toml"), text);
        parse(TEXT).unwrap();
        for (right, wrong, said) in [
            ("[30, 60]", "[0, 60]", "0 seconds"),
            ("\"host\"", "\"\"", "refuse"),
            ("\"http://127", "\"ftp://127", "no address"),
            (
                "# proxy = \"http://proxy.example:3128\"",
                "proxy = \"http://u:hunter2@p\"",
                "credentials",
            ),
            (
                "[logs]",
                "[labels]\njob = \"x\"\n[logs]",
                "set by the shipper",
            ),
            ("[logs]", "[labels]\n\"a-b\" = \"x\"\n[logs]", "no name"),
            ("[logs]", "unknown = 1\n[logs]", "unknown"),
        ] {
            assert!(TEXT.contains(right), "{right}");
            let error = parse(&TEXT.replacen(right, wrong, 1))
                .unwrap_err()
                .to_string();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }
}
