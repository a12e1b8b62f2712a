//! Handles: the names of accounts and projects, made equal once.
//!
//! What authorizes a request and what names its objects is the same value of the same type, so
//! that no second spelling of a project can exist.

use std::fmt;
use std::sync::Arc;

/// Longest handle in bytes; a store key has room for both.
pub(crate) const LONGEST: usize = 255;

/// The name of an account or of a project: printable ASCII in lower case, one component of a path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Handle(Arc<str>);

/// Why a text is no handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHandle {
    /// It is empty.
    Empty,
    /// It has a `%` after it was decoded: it was encoded twice.
    EncodedTwice,
    /// It could not be one component of a path, or is no printable ASCII; what it must not be.
    Unsafe(&'static str),
}

impl Handle {
    /// From a text that was percent-decoded once. Upper case becomes lower case.
    ///
    /// # Errors
    ///
    /// It is no handle.
    pub(crate) fn parse(text: &str) -> Result<Self, NoHandle> {
        if text.contains('%') {
            return Err(NoHandle::EncodedTwice);
        }
        match crate::target::unsafe_name(text) {
            Some(_) if text.is_empty() => return Err(NoHandle::Empty),
            Some(why) => return Err(NoHandle::Unsafe(why)),
            None => {}
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NoHandle::Unsafe(
                "Invalid format. It must be printable ASCII",
            ));
        }
        if text.len() > LONGEST {
            return Err(NoHandle::Unsafe(
                "String length is larger than maxLength: 255",
            ));
        }
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Ok(Self(text.to_ascii_lowercase().into()));
        }
        Ok(Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A project of an account: what a request is about and what a token gives access to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Project {
    pub(crate) account: Handle,
    pub(crate) project: Handle,
}

impl Project {
    /// Of two texts, each percent-decoded once.
    ///
    /// # Errors
    ///
    /// One is no handle: which (`account_handle` or `project_handle`), and why.
    pub(crate) fn parse(account: &str, project: &str) -> Result<Self, (&'static str, NoHandle)> {
        Ok(Self {
            account: Handle::parse(account).map_err(|why| ("account_handle", why))?,
            project: Handle::parse(project).map_err(|why| ("project_handle", why))?,
        })
    }

    /// From `account/project`, as tokens and the Tuist server write it. `None`: it is none.
    pub(crate) fn of_full_name(text: &str) -> Option<Self> {
        let (account, project) = text.split_once('/')?;
        Self::parse(account, project).ok()
    }
}

impl fmt::Display for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.project)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_does_not_make_another_project() {
        let project = Project::parse("Acme", "iOS").unwrap();
        assert_eq!(project, Project::parse("acme", "ios").unwrap());
        assert_eq!(project.to_string(), "acme/ios");
        assert_eq!(Project::of_full_name("ACME/ios"), Some(project));
    }

    #[test]
    fn what_is_no_handle_is_refused() {
        let why = |text| Handle::parse(text).unwrap_err();
        assert_eq!(why(""), NoHandle::Empty);
        assert_eq!(why("a%2fb"), NoHandle::EncodedTwice);
        for bad in [
            ".",
            "..",
            "a/b",
            "a\\b",
            "a\0",
            "a b",
            "é",
            "İ",
            "a\n",
            &"a".repeat(256),
        ] {
            assert!(matches!(why(bad), NoHandle::Unsafe(_)), "{bad:?}");
        }
        for bad in ["", "a", "a/", "/a", "a/b/c", "../a"] {
            assert_eq!(Project::of_full_name(bad), None, "{bad}");
        }
        let error = Project::parse("a", "").unwrap_err();
        assert_eq!(error, ("project_handle", NoHandle::Empty));
    }
}
