//! Answers by account and status, for alerts: who is refused, and how often.
//!
//! Labels are bounded whatever clients send. The accounts with the most answers have a label, the
//! rest share [`REST`]; names that no credential was ever good for get few of them, and give way to
//! accounts that have proved themselves. Counts of an account begin at 0 when it gets its label, so
//! that no series ever jumps.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use http::Response;

use crate::auth::Handle;
use crate::body::Body;
use crate::metrics::Text;

/// Most accounts with a label of their own.
const LABELS: usize = 100;
/// How many of them may be names that were only ever refused.
const UNPROVED: usize = 20;
/// Most accounts that wait for a label.
const WAITING: usize = 1000;
/// The label of all others. No handle: those are in lower case without blanks.
const REST: &str = "(other)";

/// Whose request it is.
#[derive(Clone, Debug)]
pub(crate) struct Whose {
    pub(crate) account: Handle,
    /// A credential was good for it; otherwise it is a name that somebody sent.
    pub(crate) granted: bool,
}

/// Notes on an answer whose request it answers.
pub(crate) fn concerning(
    account: Handle,
    granted: bool,
    mut response: Response<Body>,
) -> Response<Body> {
    response.body_mut().answers(Whose { account, granted });
    response
}

/// Answers by status.
type Statuses = BTreeMap<u16, u64>;

#[derive(Debug, Default)]
struct Labelled {
    proved: bool,
    /// All its answers, also those before it had a label.
    total: u64,
    statuses: Statuses,
}

#[derive(Debug, Default)]
struct Table {
    labelled: HashMap<Handle, Labelled>,
    /// Answers of proved accounts without a label.
    waiting: HashMap<Handle, u64>,
    rest: Statuses,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Accounts(Mutex<Table>);

impl Accounts {
    /// A request was answered.
    pub(crate) fn count(&self, whose: &Whose, status: u16) {
        // Plain numbers: at worst one request is counted by half.
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let statuses = match table.labelled(whose) {
            Some(labelled) => {
                labelled.proved |= whose.granted;
                labelled.total += 1;
                &mut labelled.statuses
            }
            None => &mut table.rest,
        };
        *statuses.entry(status).or_default() += 1;
    }

    pub(crate) fn write(&self, text: &mut Text) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.family(
            "larder_cache_account_responses_total",
            "counter",
            "Answers to requests that named an account.",
        );
        let labelled = table.labelled.iter();
        let labelled = labelled.map(|(name, labelled)| (name.as_str(), &labelled.statuses));
        let mut all: Vec<_> = labelled.chain([(REST, &table.rest)]).collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        for (account, statuses) in all {
            for (status, count) in statuses {
                let status = status.to_string();
                text.line("", &[("account", account), ("status", &status)], count);
            }
        }
    }
}

impl Table {
    /// The entry of an account that has a label, or gets one now.
    fn labelled(&mut self, whose: &Whose) -> Option<&mut Labelled> {
        if !self.labelled.contains_key(&whose.account) {
            let total = self.deserves(whose)?;
            self.waiting.remove(&whose.account);
            let labelled = Labelled {
                total,
                ..Labelled::default()
            };
            self.labelled.insert(whose.account.clone(), labelled);
        }
        self.labelled.get_mut(&whose.account)
    }

    /// Answers so far of an account that is to have a label; there is room for it then.
    fn deserves(&mut self, whose: &Whose) -> Option<u64> {
        let unproved = |table: &Self| {
            let labelled = table.labelled.values();
            labelled.filter(|labelled| !labelled.proved).count()
        };
        let room = self.labelled.len() < LABELS;
        if !whose.granted {
            return (room && unproved(self) < UNPROVED).then_some(0);
        }
        if room {
            return Some(0);
        }
        if self.waiting.len() >= WAITING && !self.waiting.contains_key(&whose.account) {
            self.waiting.clear();
        }
        let total = self.waiting.entry(whose.account.clone()).or_default();
        *total += 1;
        let total = *total;
        let least = self.labelled.iter().min_by(|(a, one), (b, other)| {
            let rank = |labelled: &Labelled| (labelled.proved, labelled.total);
            rank(one).cmp(&rank(other)).then_with(|| b.cmp(a))
        });
        let (account, least) = least?;
        // Twice as many: two that are near each other do not change places all the time.
        if least.proved && total <= least.total.saturating_mul(2) {
            return None;
        }
        let (account, proved, total_of_least) = (account.clone(), least.proved, least.total);
        self.labelled.remove(&account);
        if proved {
            self.waiting.insert(account, total_of_least);
        }
        Some(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(account: &str, granted: bool) -> Whose {
        Whose {
            account: Handle::parse(account).unwrap(),
            granted,
        }
    }

    fn text(accounts: &Accounts) -> String {
        let mut text = Text::default();
        accounts.write(&mut text);
        text.into_text()
    }

    fn labels(accounts: &Accounts) -> usize {
        accounts.0.lock().unwrap().labelled.len()
    }

    #[test]
    fn answers_are_counted_by_account_and_status() {
        let accounts = Accounts::default();
        accounts.count(&whose("acme", true), 200);
        accounts.count(&whose("acme", true), 200);
        accounts.count(&whose("ACME", false), 401);
        accounts.count(&whose("quo\"te", false), 403);
        let text = text(&accounts);
        for line in [
            r#"larder_cache_account_responses_total{account="acme",status="200"} 2"#,
            r#"larder_cache_account_responses_total{account="acme",status="401"} 1"#,
            r#"larder_cache_account_responses_total{account="quo\"te",status="403"} 1"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }

    #[test]
    fn made_up_names_take_few_labels_and_give_way() {
        let accounts = Accounts::default();
        for at in 0..1000 {
            accounts.count(&whose(&format!("guess{at}"), false), 401);
        }
        assert_eq!(labels(&accounts), UNPROVED);
        assert!(text(&accounts).contains(r#"{account="(other)",status="401"} 980"#));
        for at in 0..LABELS {
            accounts.count(&whose(&format!("real{at}"), true), 200);
        }
        let text = text(&accounts);
        assert_eq!(labels(&accounts), LABELS);
        assert!(!text.contains("guess"), "{text}");
        for at in 0..LABELS {
            assert!(text.contains(&format!("{{account=\"real{at}\",status=\"200\"}} 1\n")));
        }
    }

    #[test]
    fn accounts_with_the_most_answers_have_labels() {
        let accounts = Accounts::default();
        for at in 0..LABELS {
            for _ in 0..10 {
                accounts.count(&whose(&format!("early{at}"), true), 200);
            }
        }
        for at in 0..5000 {
            accounts.count(&whose(&format!("small{at}"), true), 200);
        }
        for _ in 0..100 {
            accounts.count(&whose("late", true), 200);
        }
        let text = text(&accounts);
        assert_eq!(labels(&accounts), LABELS);
        // The first 20 went to the others.
        assert!(
            text.contains(r#"{account="late",status="200"} 80"#),
            "{text}"
        );
        assert!(
            text.contains(r#"{account="(other)",status="200"} 5020"#),
            "{text}"
        );
        assert!(!text.contains("small"));
    }
}
