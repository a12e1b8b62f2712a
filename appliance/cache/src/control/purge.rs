//! Which objects a filter means, and removing them.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use store::{Info, Key, Kind};

use super::questions::{Outcome, blocking, object, scan};
use super::{Answers, Filter, Line, key};
use crate::auth::Project;
use crate::server::Shared;

/// A filter that was understood.
#[derive(Clone, Debug, Default)]
pub(super) struct Matcher {
    key: Option<Key>,
    account: Option<String>,
    project: Option<Project>,
    kind: Option<&'static str>,
    writer: Option<String>,
    since: Option<u64>,
}

impl Matcher {
    /// Of a filter. `Err`: what is wrong with it.
    pub(super) fn new(filter: &Filter) -> Result<Self, String> {
        let read = |text: &String| {
            key::read(text)
                .ok_or_else(|| format!("{text:?} is no key; `appliance cache ls` prints keys"))
        };
        let project = |text: &String| {
            Project::of_full_name(text).ok_or_else(|| format!("{text:?} is not account/project"))
        };
        let kind = |text: &String| {
            let kind = Kind::of_name(text).map(Kind::name);
            kind.ok_or_else(|| format!("{text:?} is no kind of objects"))
        };
        Ok(Self {
            key: filter.key.as_ref().map(read).transpose()?,
            // As handles are made equal.
            account: filter
                .account
                .as_ref()
                .map(|name| name.to_ascii_lowercase()),
            project: filter.project.as_ref().map(project).transpose()?,
            kind: filter.kind.as_ref().map(kind).transpose()?,
            writer: filter.writer.clone(),
            since: filter.since,
        })
    }

    /// Whether it means an object.
    pub(super) fn is(&self, info: &Info) -> bool {
        let [kind, account, project, ..] = info.key.each();
        let fits = |wanted: &Option<String>, value: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == value)
        };
        self.key
            .as_ref()
            .is_none_or(|key| info.key.key().as_ref() == Some(key))
            && fits(&self.account, account)
            && self.project.as_ref().is_none_or(|wanted| {
                wanted.account.as_str() == account && wanted.project.as_str() == project
            })
            && self.kind.is_none_or(|wanted| wanted == kind)
            && self
                .writer
                .as_ref()
                .is_none_or(|wanted| is_writer(info, wanted))
            && self.since.is_none_or(|since| info.time >= since)
    }

    /// Whether it means whole projects.
    fn is_whole(&self) -> bool {
        self.key.is_none() && self.kind.is_none() && self.writer.is_none() && self.since.is_none()
    }

    fn is_empty(&self) -> bool {
        self.is_whole() && self.account.is_none() && self.project.is_none()
    }
}

/// Whether an object was written with a token of this fingerprint or subject.
fn is_writer(info: &Info, wanted: &str) -> bool {
    let fingerprint: String = info
        .writer
        .fingerprint
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    fingerprint.eq_ignore_ascii_case(wanted)
        || (!info.writer.subject.is_empty() && info.writer.subject == wanted)
}

/// Removes what a filter means, or says what it would remove. Whole projects are cleaned, so that
/// uploads that are on their way do not land either; all else is removed one by one.
pub(super) async fn purge(
    shared: &Arc<Shared>,
    filter: &Filter,
    dry_run: bool,
    answers: &Answers,
) -> Outcome {
    let matcher = Matcher::new(filter)?;
    if matcher.is_empty() {
        return Err("say what to purge: a key, an account, a project, a writer or a time".into());
    }
    if !shared.store.is_recovered() {
        return Err("the index is still being read: not all objects are known yet".into());
    }
    if let Some(key) = matcher.key.clone().filter(|_| !dry_run) {
        return purge_key(shared, &matcher, &key, answers).await;
    }
    let (sender, mut found) = tokio::sync::mpsc::channel::<Info>(256);
    let scanned = matcher.clone();
    let scanning = {
        let (shared, answers) = (Arc::clone(shared), answers.clone());
        tokio::spawn(async move {
            blocking(&shared, &answers, move |store, _| {
                scan(store, &scanned, |info| {
                    match sender.blocking_send(info.clone()) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(_) => ControlFlow::Break(()),
                    }
                })
            })
            .await
        })
    };
    let mut projects: BTreeSet<(String, String)> = matcher
        .project
        .iter()
        .map(|project| (project.account.to_string(), project.project.to_string()))
        .collect();
    let mut failed = 0_u64;
    while let Some(info) = found.recv().await {
        let Some(key) = info.key.key() else {
            continue;
        };
        if dry_run {
            answers.tell(Line::Object(object(&info))).await;
        } else if matcher.is_whole() {
            projects.insert((key.account, key.project));
        } else if !remove(shared, &matcher, &info, &key, answers).await {
            failed += 1;
        }
    }
    let (objects, bytes) = scanning.await.map_err(|_| "it was interrupted")??;
    if matcher.is_whole() && !dry_run {
        for (account, project) in projects {
            if let Ok(project) = Project::parse(&account, &project) {
                shared.sessions.forget(&project);
            }
            let cleaned = shared.store.clean(&account, &project).await;
            cleaned.map_err(|error| format!("{account}/{project}: {error}"))?;
        }
    }
    if failed > 0 {
        return Err(format!(
            "{failed} of {objects} objects could not be removed"
        ));
    }
    Ok((objects, bytes))
}

async fn purge_key(
    shared: &Arc<Shared>,
    matcher: &Matcher,
    key: &Key,
    answers: &Answers,
) -> Outcome {
    let found = shared.store.head(key).await;
    match found.map_err(|error| error.to_string())? {
        Some(info) if matcher.is(&info) => {
            match remove(shared, matcher, &info, key, answers).await {
                true => Ok((1, info.length)),
                false => Err("it could not be removed".into()),
            }
        }
        _ => Err("there is no such object".into()),
    }
}

/// Removes an object, unless another one lies there by now that is not meant.
async fn remove(
    shared: &Shared,
    matcher: &Matcher,
    info: &Info,
    key: &Key,
    answers: &Answers,
) -> bool {
    match shared.store.head(key).await {
        Ok(Some(now)) if matcher.is(&now) => {}
        Ok(_) => return true,
        Err(_) => return false,
    }
    match shared.store.remove(key).await {
        Ok(_) => {
            answers.tell(Line::Object(object(info))).await;
            true
        }
        Err(error) => {
            let key = key::write(&info.key);
            let what = error.to_string();
            answers.tell(Line::Problem { key, what }).await;
            false
        }
    }
}
