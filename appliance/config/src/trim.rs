//! Which files of the packages the image keeps: [`Trim`], compiled.

use crate::glob::Pattern;
use crate::{Error, Trim};

/// The rules, ready for thousands of paths.
#[derive(Clone, Debug)]
pub struct Rules(Vec<(Pattern, bool)>);

impl Rules {
    /// Compiles the rules.
    ///
    /// # Errors
    /// A pattern that is no absolute path.
    pub fn new(trim: &Trim) -> Result<Self, Error> {
        let mut rules = Vec::new();
        for (number, rule) in trim.rules.iter().enumerate() {
            for path in &rule.paths {
                if !path.starts_with('/') {
                    return Err(Error {
                        file: "image.toml".into(),
                        at: None,
                        message: format!("trim.rules[{number}]: {path:?} is no absolute path"),
                        hint: "patterns begin with `/`, as in \"/usr/share/man/**\"".into(),
                    });
                }
                rules.push((Pattern::new(path), rule.keep));
            }
        }
        Ok(Self(rules))
    }

    /// Whether a file stays: what the last rule that matches says; `true` if none does.
    #[must_use]
    pub fn keeps(&self, path: &str) -> bool {
        let last = self
            .0
            .iter()
            .rev()
            .find(|(pattern, _)| pattern.matches(path));
        last.is_none_or(|(_, keep)| *keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TrimRule;

    #[test]
    fn the_last_rule_that_matches_wins() {
        let rule = |path: &str, keep| TrimRule {
            paths: vec![path.into()],
            keep,
            why: "test".into(),
        };
        let trim = Trim {
            rules: vec![
                rule("/usr/share/doc/**", false),
                rule("/usr/share/doc/*/copyright", true),
                rule("/usr/share/doc/secret/**", false),
            ],
        };
        let rules = Rules::new(&trim).unwrap();
        assert!(!rules.keeps("/usr/share/doc/bash/README"));
        assert!(rules.keeps("/usr/share/doc/bash/copyright"));
        assert!(!rules.keeps("/usr/share/doc/secret/copyright"));
        assert!(rules.keeps("/usr/bin/bash"));
        let relative = Trim {
            rules: vec![rule("usr", false)],
        };
        assert!(Rules::new(&relative).is_err());
    }
}
