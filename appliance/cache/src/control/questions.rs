//! The answers.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use store::{Finding, Info, Status, Store};

use super::purge::{self, Matcher};
use super::{Answers, Line, Object, Question, Usage, key};
use crate::auth::to_hex;
use crate::server::Shared;

/// Most projects that are listed.
const PROJECTS: usize = 10_000;

/// Answers one question.
pub(super) async fn answer(shared: Arc<Shared>, question: Question, answers: Answers) {
    let last = match question {
        Question::Explain { key } => explain(&shared, &key, &answers).await,
        Question::Usage { projects } => usage(&shared, projects, &answers).await,
        Question::Ls { filter } => match Matcher::new(&filter) {
            Ok(matcher) => {
                blocking(&shared, &answers, move |store, answers| {
                    list(store, &matcher, answers)
                })
                .await
            }
            Err(why) => Err(why),
        },
        Question::Verify { filter } => match Matcher::new(&filter) {
            Ok(matcher) => verify(&shared, matcher, &answers).await,
            Err(why) => Err(why),
        },
        Question::Purge { filter, dry_run } => {
            purge::purge(&shared, &filter, dry_run, &answers).await
        }
    };
    let line = match last {
        Ok((objects, bytes)) => Line::Done { objects, bytes },
        Err(why) => Line::Failed { why },
    };
    answers.tell(line).await;
}

/// Objects and bytes, or why not.
pub(super) type Outcome = Result<(u64, u64), String>;

/// Does work that waits for the disk.
pub(super) async fn blocking(
    shared: &Arc<Shared>,
    answers: &Answers,
    work: impl FnOnce(&Store, &Answers) -> Outcome + Send + 'static,
) -> Outcome {
    let (store, answers) = (shared.store.clone(), answers.clone());
    let done = tokio::task::spawn_blocking(move || work(&store, &answers)).await;
    done.unwrap_or_else(|_| Err("it was interrupted".into()))
}

/// What is known of an object.
pub(super) fn object(info: &Info) -> Object {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Object {
        key: key::write(&info.key),
        bytes: info.length,
        time: info.time,
        fingerprint: hex(&info.writer.fingerprint),
        subject: info.writer.subject.clone(),
        request: info.writer.request.clone(),
        sha256: info.sha256.as_ref().map(to_hex),
        content: hex(&info.content),
        pinned: info.pinned,
        note: String::from_utf8_lossy(&info.note).into_owned(),
    }
}

/// Calls `each` for all objects that match, until it breaks; how many there were.
pub(super) fn scan(
    store: &Store,
    matcher: &Matcher,
    mut each: impl FnMut(&Info) -> ControlFlow<()>,
) -> Outcome {
    let (mut objects, mut bytes) = (0, 0);
    let scanned = store.scan(|info| {
        if !matcher.is(&info) {
            return ControlFlow::Continue(());
        }
        objects += 1;
        bytes += info.length;
        each(&info)
    });
    scanned.map_err(|error| error.to_string())?;
    Ok((objects, bytes))
}

fn list(store: &Store, matcher: &Matcher, answers: &Answers) -> Outcome {
    scan(store, matcher, |info| {
        match answers.say(Line::Object(object(info))) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })
}

async fn explain(shared: &Shared, text: &str, answers: &Answers) -> Outcome {
    let Some(key) = key::read(text) else {
        return Err(format!(
            "{text:?} is no key; `appliance cache ls` prints keys"
        ));
    };
    let found = shared.store.head(&key).await;
    match found.map_err(|error| error.to_string())? {
        Some(info) => {
            answers.tell(Line::Object(object(&info))).await;
            Ok((1, info.length))
        }
        None if !shared.store.is_recovered() => {
            Err("the index is still being read: whether it is there is not known yet".into())
        }
        None => Err(
            "there is no such object: it was never stored, evicted, removed, cleaned with \
                     its project, or an object that it names is gone"
                .into(),
        ),
    }
}

async fn usage(shared: &Arc<Shared>, projects: bool, answers: &Answers) -> Outcome {
    let usage = shared.store.usage();
    let (sessions, unfinished) = shared.sessions.usage();
    let status = match shared.store.status() {
        Status::Ready => "ready".into(),
        Status::WritesFail(why) => format!("writes fail: {why}"),
        Status::Unusable(why) => format!("unusable: {why}"),
    };
    let counts = usage.counts.all().into_iter();
    let line = Line::Usage(Usage {
        status,
        recovered: shared.store.is_recovered(),
        objects: usage.objects,
        index_bytes: usage.index_bytes,
        used: usage.used,
        capacity: usage.capacity,
        pinned: usage.pinned,
        sessions: sessions as u64,
        unfinished,
        counts: counts.map(|(name, count)| (name.into(), count)).collect(),
    });
    answers.tell(line).await;
    if !projects {
        return Ok((usage.objects, usage.used));
    }
    blocking(shared, answers, |store, answers| {
        let mut all: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let outcome = scan(store, &Matcher::default(), |info| {
            let [_, account, project, ..] = info.key.each();
            let name = format!("{account}/{project}");
            if all.len() < PROJECTS || all.contains_key(&name) {
                let sums = all.entry(name).or_default();
                *sums = (sums.0 + 1, sums.1 + info.length);
            }
            ControlFlow::Continue(())
        })?;
        for (project, (objects, bytes)) in all {
            answers.say(Line::Project {
                project,
                objects,
                bytes,
            });
        }
        Ok(outcome)
    })
    .await
}

/// Reads every byte; the store checks them as they are read, and drops what is damaged. Objects of
/// the Xcode CAS are also looked into, whether they are what their id says.
async fn verify(shared: &Arc<Shared>, matcher: Matcher, answers: &Answers) -> Outcome {
    let (sender, mut infos) = tokio::sync::mpsc::channel::<Info>(64);
    let store = shared.store.clone();
    let scanning = tokio::task::spawn_blocking(move || {
        let outcome = scan(&store, &matcher, |info| {
            match sender.blocking_send(info.clone()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        (outcome, matcher)
    });
    while let Some(info) = infos.recv().await {
        let Some(key) = info.key.key() else {
            continue;
        };
        // One that went meanwhile is no problem.
        let Ok(Some(object)) = shared.store.get(&key).await else {
            continue;
        };
        let mut reader = object.read(0..u64::MAX);
        loop {
            match reader.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    let what = format!("{error}; it is a miss from now on");
                    let key = key::write(&info.key);
                    answers.tell(Line::Problem { key, what }).await;
                    break;
                }
            }
        }
    }
    let (outcome, matcher) = scanning.await.map_err(|_| "it was interrupted")?;
    let verified = outcome?;
    blocking(shared, answers, move |store, answers| {
        let audited = store.audit(|info, finding| {
            let what = match finding {
                Finding::Right => return,
                Finding::Poisoned(id) => format!("its bytes belong to the id {id}: poisoned"),
                Finding::Undecodable(why) => format!("no zstd stream, not checked: {why}"),
                Finding::TooLarge => "too large to check".into(),
            };
            if matcher.is(info) {
                let key = key::write(&info.key);
                answers.say(Line::Problem { key, what });
            }
        });
        audited
            .map_err(|error| error.to_string())
            .map(|()| verified)
    })
    .await
}
