//! Receivers, proxies and authorities on the loopback interface, and everything they may do wrong.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use receiver_double::{Reply, Request, Server, remote_write};
use shipper::counters::MetricCounters;
use shipper::http::{Answer, Client, ClientSettings, Credentials, Value};
use shipper::metrics::{Frame, Kind, Ring, Scraper, Sender, Sink, Snapshot, Source, Target};
use support::{always, client, client_as};

fn status(answer: &Answer) -> Option<u16> {
    match answer {
        Answer::Response { status, .. } => Some(*status),
        Answer::Failure(_) => None,
    }
}

#[test]
fn credentials_are_sent_and_read_anew_for_every_request() {
    let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
    let log = Arc::clone(&seen);
    let server = Server::start(move |request| {
        log.lock().unwrap().push(request);
        Reply::status(204, "")
    });
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, value: &str| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, value).unwrap();
        path
    };
    let credentials = Credentials::Basic {
        user: Value::File(file("user", "u\n")),
        password: Value::File(file("password", "one")),
    };
    let mut client = client_as(&server.url("/push"), credentials);
    assert_eq!(status(&client.post(b"a")), Some(204));
    file("password", "two");
    assert_eq!(status(&client.post(b"b")), Some(204));
    std::fs::remove_file(folder.path().join("password")).unwrap();
    let failure = client.post(b"c");
    assert!(
        matches!(&failure, Answer::Failure(text) if text.contains("password")),
        "{failure:?}"
    );
    let seen = seen.lock().unwrap();
    let sent: Vec<_> = seen
        .iter()
        .map(|request| request.header("authorization").unwrap())
        .collect();
    assert_eq!(sent, ["Basic dTpvbmU=", "Basic dTp0d28="]);
    assert_eq!(seen[0].line, "POST /push HTTP/1.1");
    assert_eq!(seen[1].body, b"b");
}

#[test]
fn whatever_a_server_does_there_is_an_answer_in_time() {
    let settings = |server: &Server| {
        let mut settings =
            ClientSettings::new(&server.url("/"), "/", Credentials::None, None, None, false)
                .unwrap();
        settings.timeout = Duration::from_millis(300);
        settings
    };
    let endless = b"HTTP/1.1 503 x\r\nContent-Length: 100000000\r\n\r\n".to_vec();
    for (reply, expected) in [
        (Reply::Drop, None),
        (Reply::Hang, None),
        (Reply::Raw(b"SSH-2.0-OpenSSH\r\n".to_vec()), None),
        (Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()), None),
        (Reply::Raw(vec![b'x'; 1 << 20]), None),
        (Reply::Raw(endless), Some(503)),
        (Reply::status(500, "x".repeat(1 << 20)), Some(500)),
        (
            Reply::Answer(
                302,
                vec!["Location: http://127.0.0.1:1/".into()],
                String::new(),
            ),
            Some(302),
        ),
    ] {
        let server = always(reply.clone());
        let mut client = Client::new(settings(&server)).unwrap();
        let answer = client.post(b"body");
        assert_eq!(status(&answer), expected, "{reply:?}: {answer:?}");
        assert!(answer.words().len() < 500);
        // And the next one is a new attempt.
        assert_eq!(status(&client.post(b"body")), expected);
    }
    let nobody = ClientSettings::new(
        "http://127.0.0.1:1/",
        "/",
        Credentials::None,
        None,
        None,
        false,
    );
    let answer = Client::new(nobody.unwrap()).unwrap().post(b"");
    assert!(
        matches!(&answer, Answer::Failure(text) if text.contains("127.0.0.1:1")),
        "{answer:?}"
    );
}

#[test]
fn a_connection_that_was_closed_is_replaced() {
    let server = Server::start(|_| Reply::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()));
    let mut client = client(&server.url("/"));
    for _ in 0..5 {
        assert_eq!(status(&client.post(b"x")), Some(204));
    }
}

struct Authority {
    certificate: String,
    config: Arc<rustls::ServerConfig>,
}

fn authority(name: &str) -> Authority {
    let own = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    Authority {
        certificate: own.cert.pem(),
        config: Arc::new(config),
    }
}

#[test]
fn an_authority_of_ones_own_is_trusted_and_no_other_is() {
    let authority = authority("localhost");
    let server = Server::start_with(Some(authority.config), |_| Reply::status(204, ""));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, authority.certificate).unwrap();
    let post = |host: &str, ca: &PathBuf| {
        let url = format!("https://{host}:{}/", server.address().port());
        let settings = ClientSettings::new(&url, "/", Credentials::None, Some(ca), None, false);
        Client::new(settings.unwrap()).unwrap().post(b"x")
    };
    assert_eq!(status(&post("localhost", &path)), Some(204));
    let wrong_name = post("127.0.0.1", &path);
    assert!(
        matches!(&wrong_name, Answer::Failure(text) if text.contains("TLS")),
        "{wrong_name:?}"
    );
    std::fs::write(&path, self::authority("localhost").certificate).unwrap();
    let stranger = post("localhost", &path);
    assert!(
        matches!(&stranger, Answer::Failure(text) if text.contains("TLS")),
        "{stranger:?}"
    );
}

#[test]
fn a_proxy_is_used_with_and_without_tls() {
    let authority = authority("localhost");
    let server = Server::start_with(Some(authority.config), |_| Reply::status(204, ""));
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.certificate).unwrap();
    let target = server.address();
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&lines);
    let proxy = Server::start(move |request| {
        log.lock().unwrap().push(request.line.clone());
        if request.line.starts_with("CONNECT") {
            Reply::Tunnel(target)
        } else {
            Reply::status(204, "")
        }
    });
    let post = |url: &str, ca: Option<&std::path::Path>, proxy: &str| {
        let settings = ClientSettings::new(url, "/push", Credentials::None, ca, Some(proxy), false);
        Client::new(settings.unwrap()).unwrap().post(b"x")
    };
    let url = format!("https://localhost:{}/", target.port());
    assert_eq!(status(&post(&url, Some(&ca), &proxy.url("/"))), Some(204));
    assert_eq!(
        status(&post("http://logs.invalid/", None, &proxy.url("/"))),
        Some(204)
    );
    assert_eq!(
        *lines.lock().unwrap(),
        [
            format!("CONNECT localhost:{} HTTP/1.1", target.port()),
            "POST http://logs.invalid/push HTTP/1.1".into()
        ]
    );
    let refusing = always(Reply::status(407, ""));
    let answer = post(&url, Some(&ca), &refusing.url("/"));
    assert!(
        matches!(&answer, Answer::Failure(text) if text.contains("407")),
        "{answer:?}"
    );
}

fn labels() -> Vec<(String, String)> {
    vec![
        ("instance".into(), "h".into()),
        ("job".into(), "cache".into()),
    ]
}

#[test]
fn series_of_a_target_that_goes_away_end() {
    let texts = Mutex::new(vec![
        Reply::status(200, "a 1\nb{x=\"1\"} 2\n"),
        Reply::status(200, "a 1\n"),
        Reply::status(500, ""),
        Reply::status(200, "<html>"),
        Reply::status(200, "a 3\n"),
    ]);
    let target = Server::start(move |_| texts.lock().unwrap().remove(0));
    let mut scraper = Scraper::new(Target {
        labels: labels(),
        interval: Duration::from_secs(30),
        source: Source::Http(Box::new(client(&target.url("/metrics")))),
    });
    let mut scrape = |time| {
        let series = remote_write::decode(&scraper.scrape(time).body).unwrap();
        let of = |name: &str| {
            let found = series
                .iter()
                .find(|series| series.label("__name__") == Some(name));
            found.map(|series| {
                if series.is_stale() {
                    None
                } else {
                    Some(series.value())
                }
            })
        };
        assert!(
            series
                .iter()
                .all(|series| series.label("job") == Some("cache"))
        );
        (of("a"), of("b"), of("up"), of("scrape_samples_scraped"))
    };
    assert_eq!(
        scrape(1),
        (
            Some(Some(1.0)),
            Some(Some(2.0)),
            Some(Some(1.0)),
            Some(Some(2.0))
        )
    );
    assert_eq!(
        scrape(2),
        (
            Some(Some(1.0)),
            Some(None),
            Some(Some(1.0)),
            Some(Some(1.0))
        )
    );
    assert_eq!(
        scrape(3),
        (Some(None), None, Some(Some(0.0)), Some(Some(0.0)))
    );
    assert_eq!(scrape(4), (None, None, Some(Some(0.0)), Some(Some(0.0))));
    assert_eq!(
        scrape(5),
        (Some(Some(3.0)), None, Some(Some(1.0)), Some(Some(1.0)))
    );
    let end = remote_write::decode(&scraper.end(6).body).unwrap();
    assert!(
        end.len() == 4 && end.iter().all(remote_write::Series::is_stale),
        "{end:?}"
    );
}

fn frame(time: i64) -> Frame {
    let mut snapshot = Snapshot::new(&labels());
    snapshot.one("x", Kind::Gauge, time as f64);
    Frame::new(time, &snapshot)
}

#[test]
fn metrics_wait_on_disk_over_a_reboot_and_arrive_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let times: Arc<Mutex<Vec<i64>>> = Arc::default();
    let down = Arc::new(Mutex::new(true));
    let (log, is_down) = (Arc::clone(&times), Arc::clone(&down));
    let server = Server::start(move |request| {
        if *is_down.lock().unwrap() {
            return Reply::status(503, "");
        }
        for series in remote_write::decode(&request.body).unwrap() {
            log.lock().unwrap().push(series.samples[0].1);
        }
        Reply::status(204, "")
    });
    let counters = Arc::new(MetricCounters::default());
    let sender = || {
        let ring = Ring::open(folder.path().join("ring"), 1 << 20, 1_000_000).unwrap();
        Sender::new(
            client(&server.url("/")),
            Some(ring),
            None,
            Arc::clone(&counters),
        )
    };
    let mut before = sender();
    for time in 0..10 {
        before.offer(frame(time));
        assert!(
            before
                .step(Duration::from_secs(time as u64 * 100), time)
                .is_some()
        );
    }
    drop(before);
    *down.lock().unwrap() = false;
    let mut after = sender();
    for time in 10..13 {
        after.offer(frame(time));
    }
    assert_eq!(after.step(Duration::ZERO, 13), None);
    assert_eq!(*times.lock().unwrap(), (0..13).collect::<Vec<_>>());
    assert_eq!(counters.dropped.total(), 0);
    assert_eq!(counters.waiting_frames.get(), 0);
    assert_eq!(
        std::fs::read_dir(folder.path().join("ring"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn metrics_survive_receivers_that_lie() {
    for reply in [
        Reply::status(200, "<html>log in"),
        Reply::status(400, "<html>bad"),
        Reply::status(401, ""),
        Reply::status(404, ""),
        Reply::Answer(301, vec!["Location: /".into()], String::new()),
        Reply::status(429, ""),
        Reply::Drop,
    ] {
        let server = always(reply.clone());
        let counters = Arc::new(MetricCounters::default());
        let mut sender = Sender::new(client(&server.url("/")), None, None, Arc::clone(&counters));
        sender.offer(frame(1));
        assert!(sender.step(Duration::ZERO, 1).is_some(), "{reply:?}");
        assert_eq!(
            (counters.dropped.total(), counters.samples.get()),
            (0, 0),
            "{reply:?}"
        );
    }
}

/// What a receiver does with remote write 2.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    Understands,
    /// 204, and nothing is stored: older Prometheus, VictoriaMetrics.
    Loses,
    Refuses,
    Fails,
}

#[test]
fn the_second_version_is_used_where_the_receiver_proves_it() {
    for second in [
        Second::Understands,
        Second::Loses,
        Second::Refuses,
        Second::Fails,
    ] {
        let stored: Arc<Mutex<Vec<(u8, f64)>>> = Arc::default();
        let asked: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (log, versions) = (Arc::clone(&stored), Arc::clone(&asked));
        let server = Server::start(move |request| {
            let header = |name| request.header(name).unwrap_or_default().to_owned();
            let version = if header("x-prometheus-remote-write-version") == "2.0.0" {
                2
            } else {
                1
            };
            assert_eq!(header("content-encoding"), "snappy");
            let content = header("content-type");
            assert_eq!(
                content.contains("proto=io.prometheus.write.v2.Request"),
                version == 2
            );
            versions.lock().unwrap().push(version);
            if version == 1 {
                let series = remote_write::decode(&request.body).unwrap();
                log.lock().unwrap().push((1, series[0].value()));
                return Reply::status(204, "");
            }
            let series = remote_write::decode_second(&request.body).unwrap();
            assert_eq!(series[0].label("job"), Some("cache"));
            match second {
                Second::Understands => {
                    log.lock().unwrap().push((2, series[0].value()));
                    let written = "X-Prometheus-Remote-Write-Samples-Written: 1";
                    Reply::Answer(204, vec![written.into()], String::new())
                }
                Second::Loses => Reply::status(204, ""),
                Second::Refuses => Reply::status(415, ""),
                Second::Fails => Reply::status(500, ""),
            }
        });
        let counters = Arc::new(MetricCounters::default());
        let mut sender = Sender::new(client(&server.url("/")), None, None, Arc::clone(&counters));
        let mut now = Duration::ZERO;
        for time in 1..=3 {
            sender.offer(frame(time));
            assert_eq!(sender.step(now, time), None, "{second:?}");
            now += Duration::from_secs(30);
        }
        // A day later it is asked again.
        sender.offer(frame(4));
        assert_eq!(sender.step(now + Duration::from_secs(86_400), 4), None);
        let version = if second == Second::Understands { 2 } else { 1 };
        let wanted: Vec<_> = (1..=4).map(|value| (version, f64::from(value))).collect();
        assert_eq!(*stored.lock().unwrap(), wanted, "{second:?}");
        let versions: &[u8] = match second {
            Second::Understands => &[2, 2, 2, 2],
            Second::Loses | Second::Refuses | Second::Fails => &[2, 1, 1, 1, 2, 1],
        };
        assert_eq!(*asked.lock().unwrap(), versions, "{second:?}");
        assert_eq!((counters.samples.get(), counters.dropped.total()), (4, 0));
    }
}
