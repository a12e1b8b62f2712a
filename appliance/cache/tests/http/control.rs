//! What the person on call asks.

use cache::control::{Filter, Line, Object, Question};
use cache::{ConfiguredToken, TokenHash};

use crate::daemon::{Daemon, PROJECT, TOKEN, sha256};

async fn daemon() -> Daemon {
    Daemon::start_with(|settings| {
        settings.auth.tokens = vec![ConfiguredToken {
            name: "poisoner".into(),
            hash: TokenHash::of_token(b"other-token").unwrap(),
            projects: vec!["*".into()],
            write: true,
            expires: None,
        }];
    })
    .await
}

fn objects(lines: &[Line]) -> Vec<Object> {
    let object = |line: &Line| match line {
        Line::Object(object) => Some(object.clone()),
        _ => None,
    };
    lines.iter().filter_map(object).collect()
}

async fn keys(daemon: &Daemon, filter: Filter) -> Vec<String> {
    let lines = daemon.ask(&Question::Ls { filter }).await;
    let mut keys: Vec<_> = objects(&lines)
        .into_iter()
        .map(|object| object.key)
        .collect();
    assert!(matches!(lines.last(), Some(Line::Done { .. })), "{lines:?}");
    keys.sort();
    keys
}

/// Two objects of the one writer, two of the other, in two projects.
async fn fill(daemon: &Daemon) {
    for (target, token) in [
        ("/cache/acme/app/a", TOKEN),
        ("/cache/acme/app/b", "other-token"),
        ("/cache/acme/other/a", "other-token"),
        ("/cache/corp/app/a", TOKEN),
    ] {
        let call = daemon
            .put(target, target)
            .token(token)
            .header("x-request-id", "req-7");
        assert_eq!(call.send().await.status, 201);
    }
}

#[tokio::test]
async fn every_object_says_who_wrote_it_and_when() {
    let daemon = daemon().await;
    fill(&daemon).await;
    let key = "free:acme/app:b".to_owned();
    let lines = daemon.ask(&Question::Explain { key }).await;
    let [object] = &objects(&lines)[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(object.fingerprint, sha256("other-token")[..16]);
    assert_eq!((&*object.subject, &*object.request), ("poisoner", "req-7"));
    assert_eq!(object.bytes, 17);
    let age = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 - object.time;
    assert!(age < 600_000, "{age}");
    for key in ["free:acme/app:none", "nonsense"] {
        let lines = daemon.ask(&Question::Explain { key: key.into() }).await;
        assert!(matches!(&lines[..], [Line::Failed { .. }]), "{lines:?}");
    }
}

#[tokio::test]
async fn a_filter_means_what_all_of_it_says() {
    let daemon = daemon().await;
    fill(&daemon).await;
    let all = keys(&daemon, Filter::default()).await;
    assert_eq!(all.len(), 4);
    let project = Filter {
        project: Some("ACME/App".into()),
        ..Filter::default()
    };
    assert_eq!(
        keys(&daemon, project.clone()).await,
        ["free:acme/app:a", "free:acme/app:b"]
    );
    let writer = Filter {
        writer: Some("poisoner".into()),
        ..project
    };
    assert_eq!(keys(&daemon, writer).await, ["free:acme/app:b"]);
    let account = Filter {
        account: Some("corp".into()),
        ..Filter::default()
    };
    assert_eq!(keys(&daemon, account).await, ["free:corp/app:a"]);
    let future = Filter {
        since: Some(u64::MAX / 2),
        ..Filter::default()
    };
    assert!(keys(&daemon, future).await.is_empty());
    let kind = Filter {
        kind: Some("gradle".into()),
        ..Filter::default()
    };
    assert!(keys(&daemon, kind).await.is_empty());
}

#[tokio::test]
async fn what_a_writer_wrote_is_purged_and_nothing_else() {
    let daemon = daemon().await;
    fill(&daemon).await;
    let fingerprint = sha256("other-token")[..16].to_owned();
    let purge = |dry_run| Question::Purge {
        filter: Filter {
            writer: Some(fingerprint.clone()),
            ..Filter::default()
        },
        dry_run,
    };
    let lines = daemon.ask(&purge(true)).await;
    assert_eq!(objects(&lines).len(), 2);
    assert_eq!(keys(&daemon, Filter::default()).await.len(), 4);
    let lines = daemon.ask(&purge(false)).await;
    assert_eq!(
        lines.last(),
        Some(&Line::Done {
            objects: 2,
            bytes: 17 + 19
        })
    );
    let wanted = ["free:acme/app:a", "free:corp/app:a"];
    assert_eq!(keys(&daemon, Filter::default()).await, wanted);
    assert_eq!(daemon.get("/cache/acme/app/b").send().await.status, 404);
    let daemon = daemon.restart().await;
    assert_eq!(keys(&daemon, Filter::default()).await, wanted);
}

#[tokio::test]
async fn accounts_projects_and_keys_are_purged() {
    let daemon = daemon().await;
    fill(&daemon).await;
    let purge = |filter| Question::Purge {
        filter,
        dry_run: false,
    };
    let lines = daemon.ask(&purge(Filter::default())).await;
    assert!(matches!(&lines[..], [Line::Failed { .. }]), "{lines:?}");
    let key = Filter {
        key: Some("free:acme/app:a".into()),
        ..Filter::default()
    };
    let lines = daemon.ask(&purge(key.clone())).await;
    assert_eq!(
        lines.last(),
        Some(&Line::Done {
            objects: 1,
            bytes: 17
        })
    );
    assert!(matches!(
        &daemon.ask(&purge(key)).await[..],
        [Line::Failed { .. }]
    ));
    let project = Filter {
        project: Some("acme/other".into()),
        ..Filter::default()
    };
    daemon.ask(&purge(project)).await;
    assert_eq!(
        keys(&daemon, Filter::default()).await,
        ["free:acme/app:b", "free:corp/app:a"]
    );
    let account = Filter {
        account: Some("acme".into()),
        ..Filter::default()
    };
    daemon.ask(&purge(account)).await;
    assert_eq!(keys(&daemon, Filter::default()).await, ["free:corp/app:a"]);
}

#[tokio::test]
async fn usage_counts_by_project() {
    let daemon = daemon().await;
    fill(&daemon).await;
    let lines = daemon.ask(&Question::Usage { projects: true }).await;
    let Line::Usage(usage) = &lines[0] else {
        panic!("{lines:?}");
    };
    assert_eq!((&*usage.status, usage.objects), ("ready", 4));
    assert!(usage.used > 0 && usage.capacity > usage.used);
    let project = Line::Project {
        project: "acme/app".into(),
        objects: 2,
        bytes: 34,
    };
    assert!(lines.contains(&project), "{lines:?}");
}

#[tokio::test]
async fn verify_finds_what_is_not_what_its_id_says() {
    let daemon = daemon().await;
    fill(&daemon).await;
    let id = "0A".repeat(32);
    let plain = zstd::encode_all(&b"not what the id says"[..], 1).unwrap();
    daemon
        .post(format!("/api/cache/cas/{id}?{PROJECT}"), plain)
        .send()
        .await;
    let lines = daemon
        .ask(&Question::Verify {
            filter: Filter::default(),
        })
        .await;
    let problems: Vec<_> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Problem { key, what } => Some((key.as_str(), what.as_str())),
            _ => None,
        })
        .collect();
    let [(key, what)] = problems[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(key, format!("xcode-cas:acme/app:{id}"));
    assert!(what.ends_with("poisoned"), "{what}");
    assert!(
        matches!(lines.last(), Some(Line::Done { objects: 5, .. })),
        "{lines:?}"
    );
}
