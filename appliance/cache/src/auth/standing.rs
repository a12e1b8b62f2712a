//! What is known about a token: the projects that it is for, and what stands against it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Action, Denial, Handle, Project, Projects};

/// For a free account that used up what is free.
pub(super) const FREE_TIER: &str = "This account has reached the free tier limits. Upgrade to the \
    'Tuist Pro' plan to continue using the cache.";
/// For an account whose subscription ended.
pub(super) const INACTIVE: &str = "The subscription for this account is not active. Update your \
    billing details to continue.";

/// What is known about one token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Whose it is.
    pub(super) subject: Option<Arc<str>>,
    pub(super) scope: Scope,
    pub(super) unpaid: Unpaid,
    /// When it ends, as time since 1970.
    pub(super) expires: Option<Duration>,
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything there is, up to this.
    All(Action),
    /// Some accounts whole, and some projects.
    Some {
        accounts: BTreeMap<Handle, Action>,
        projects: BTreeMap<Project, Action>,
    },
}

impl Default for Scope {
    fn default() -> Self {
        Self::projects([])
    }
}

/// Whose bills are not paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unpaid {
    /// Those of these accounts, with what is said then.
    Accounts(BTreeMap<Handle, &'static str>),
    /// Whatever the account.
    All,
}

impl Default for Unpaid {
    fn default() -> Self {
        Self::Accounts(BTreeMap::new())
    }
}

impl Scope {
    pub(super) fn projects(projects: impl IntoIterator<Item = (Project, Action)>) -> Self {
        Self::Some {
            accounts: BTreeMap::new(),
            projects: projects.into_iter().collect(),
        }
    }

    /// The most that may be done to a project.
    fn most(&self, project: &Project) -> Option<Action> {
        match self {
            Self::All(action) => Some(*action),
            Self::Some { accounts, projects } => {
                let account = accounts.get(&project.account).copied();
                account.max(projects.get(project).copied())
            }
        }
    }
}

impl Standing {
    /// Whether the token may do this to the project at `now`, time since 1970.
    pub(super) fn decide(
        &self,
        project: Option<&Project>,
        action: Action,
        now: Duration,
    ) -> Result<(), Denial> {
        if self.ended(now) {
            return Err(Denial::Unauthorized);
        }
        let project = project.ok_or(Denial::Forbidden)?;
        if let Some(text) = self.unpaid(&project.account) {
            return Err(Denial::Payment(text));
        }
        match self.scope.most(project) {
            Some(most) if most >= action => Ok(()),
            _ => Err(Denial::Forbidden),
        }
    }

    /// Whether its time is over.
    pub(super) fn ended(&self, now: Duration) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn unpaid(&self, account: &Handle) -> Option<&'static str> {
        match &self.unpaid {
            Unpaid::All => Some(FREE_TIER),
            Unpaid::Accounts(accounts) => accounts.get(account).copied(),
        }
    }

    /// Takes a project away.
    pub(super) fn without(&self, project: &Project) -> Self {
        let mut standing = self.clone();
        if let Scope::Some { accounts, projects } = &mut standing.scope {
            accounts.remove(&project.account);
            projects.remove(project);
        }
        standing
    }

    /// The projects that it is for.
    pub(super) fn listed(&self) -> Projects {
        match &self.scope {
            Scope::All(_) => Projects::All,
            Scope::Some { accounts, projects } if accounts.is_empty() => {
                let listed = projects
                    .iter()
                    .map(|(project, most)| (project.clone(), *most));
                Projects::These(listed.collect())
            }
            // Of an account all that come and go.
            Scope::Some { accounts, projects } => {
                let named = projects.keys().map(|project| project.account.clone());
                let named: BTreeSet<_> = named.chain(accounts.keys().cloned()).collect();
                Projects::Accounts(named.into_iter().collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(text: &str) -> Project {
        Project::of_full_name(text).unwrap()
    }

    #[test]
    fn reading_does_not_allow_writing() {
        let standing = Standing {
            scope: Scope::projects([
                (project("a/read"), Action::Read),
                (project("a/write"), Action::Write),
            ]),
            ..Standing::default()
        };
        let decide = |text, action| {
            let project = project(text);
            standing.decide(Some(&project), action, Duration::ZERO)
        };
        assert_eq!(decide("a/read", Action::Read), Ok(()));
        assert_eq!(decide("a/read", Action::Write), Err(Denial::Forbidden));
        assert_eq!(decide("a/write", Action::Read), Ok(()));
        assert_eq!(decide("a/write", Action::Write), Ok(()));
        assert_eq!(decide("b/write", Action::Read), Err(Denial::Forbidden));
        let none = standing.decide(None, Action::Read, Duration::ZERO);
        assert_eq!(none, Err(Denial::Forbidden));
    }

    #[test]
    fn time_comes_before_money_and_money_before_rights() {
        let account = Handle::parse("a").unwrap();
        let standing = Standing {
            unpaid: Unpaid::Accounts([(account, INACTIVE)].into()),
            expires: Some(Duration::from_secs(10)),
            ..Standing::default()
        };
        let decide = |text, now| {
            let project = project(text);
            standing.decide(Some(&project), Action::Read, Duration::from_secs(now))
        };
        assert_eq!(decide("a/x", 9), Err(Denial::Payment(INACTIVE)));
        assert_eq!(decide("b/x", 9), Err(Denial::Forbidden));
        assert_eq!(decide("a/x", 10), Err(Denial::Unauthorized));
    }
}
