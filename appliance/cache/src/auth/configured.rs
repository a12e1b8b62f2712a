//! Tokens of our own: 256 bits each, of which the configuration holds the SHA-256.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::standing::{Scope, Standing};
use super::{Action, Handle, Project, TokenHash};

/// A token of the configuration.
#[derive(Clone, Debug)]
pub struct ConfiguredToken {
    /// What people call it; becomes the subject of what it writes.
    pub name: String,
    /// The hash of the token.
    pub hash: TokenHash,
    /// What it is for: `account/project`, `account/*` or `*`.
    pub projects: Vec<String>,
    /// Whether it may write as well.
    pub write: bool,
    /// When it ends, as time since 1970; `None`: never.
    pub expires: Option<Duration>,
}

/// All of them by the hash of the token.
pub(super) type Configured = HashMap<[u8; 32], Arc<Standing>>;

/// Puts tokens together. `Err`: what is wrong with one.
pub(super) fn configured(tokens: &[ConfiguredToken]) -> Result<Configured, String> {
    let mut all = Configured::new();
    for token in tokens {
        let name = &token.name;
        let standing = Standing {
            subject: Some(name.as_str().into()),
            scope: scope(token).map_err(|wrong| {
                format!(
                    "the token {name:?} is for {wrong:?}, which is neither account/project, \
                     account/* nor *"
                )
            })?,
            expires: token.expires,
            ..Standing::default()
        };
        if all.insert(*token.hash.digest(), standing.into()).is_some() {
            return Err(format!(
                "the token {name:?} has the same SHA-256 as another one"
            ));
        }
    }
    Ok(all)
}

fn scope(token: &ConfiguredToken) -> Result<Scope, String> {
    let most = if token.write {
        Action::Write
    } else {
        Action::Read
    };
    let (mut accounts, mut projects) = (BTreeMap::new(), BTreeMap::new());
    for text in &token.projects {
        if text == "*" {
            return Ok(Scope::All(most));
        }
        let whole = text.strip_suffix("/*").map(Handle::parse);
        if let Some(Ok(account)) = whole {
            accounts.insert(account, most);
        } else if let Some(project) = Project::of_full_name(text).filter(|_| !text.contains('*')) {
            projects.insert(project, most);
        } else {
            return Err(text.clone());
        }
    }
    Ok(Scope::Some { accounts, projects })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Denial;

    fn token(projects: &[&str], write: bool) -> ConfiguredToken {
        ConfiguredToken {
            name: "ci".into(),
            hash: TokenHash::of_token(b"t").unwrap(),
            projects: projects.iter().map(|text| (*text).into()).collect(),
            write,
            expires: None,
        }
    }

    #[test]
    fn a_token_is_for_what_it_names() {
        let all = configured(&[token(&["Acme/iOS", "other/*"], false)]).unwrap();
        let standing = all.values().next().unwrap();
        let decide = |text, action| {
            let project = Project::of_full_name(text).unwrap();
            standing.decide(Some(&project), action, Duration::ZERO)
        };
        assert_eq!(decide("acme/ios", Action::Read), Ok(()));
        assert_eq!(decide("OTHER/any", Action::Read), Ok(()));
        assert_eq!(decide("acme/ios", Action::Write), Err(Denial::Forbidden));
        assert_eq!(decide("acme/mac", Action::Read), Err(Denial::Forbidden));
        let all = configured(&[token(&["*"], true)]).unwrap();
        let standing = all.values().next().unwrap();
        let project = Project::of_full_name("a/b").unwrap();
        let decided = standing.decide(Some(&project), Action::Write, Duration::ZERO);
        assert_eq!(decided, Ok(()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_name() {
        for wrong in ["acme", "*/ios", "acme/i*", "", "a/b/c"] {
            let error = configured(&[token(&[wrong], true)]).unwrap_err();
            assert!(error.contains("\"ci\"") && error.contains(wrong), "{error}");
        }
        let twice = configured(&[token(&["a/b"], true), token(&["a/c"], true)]);
        assert!(twice.unwrap_err().contains("same SHA-256"));
    }
}
