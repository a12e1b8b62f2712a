//! `op://<vault>/<item>/[<section>/]<field>[?attribute=otp]`.
//!
//! The grammar is that of the vendor's own clients, without what they accept by accident: empty
//! parts and a slash at the end.

use std::fmt;

use super::part;

/// Characters of a part besides letters and digits.
const ALLOWED: &str = " _.-";

/// A field of an item in a 1Password vault. Names match without regard to case, or are ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OnePasswordReference {
    /// Title or id of the vault.
    pub vault: String,
    /// Title or id of the item.
    pub item: String,
    /// Title or id of the section; without one the field is looked for in all.
    pub section: Option<String>,
    /// Label or id of the field.
    pub field: String,
    /// What of the field, if not its value.
    pub attribute: Option<Attribute>,
}

/// What of a field is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attribute {
    /// The one-time code of the moment (`attribute=otp` or `totp`).
    OneTimePassword,
}

impl OnePasswordReference {
    /// Parses what follows `op://`.
    pub(super) fn parse(rest: &str) -> Result<Self, String> {
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let attribute = query.map(parse_query).transpose()?;
        let parts: Vec<&str> = path.split('/').collect();
        let (section, field) = match parts[..] {
            [_, _, field] => (None, field),
            [_, _, section, field] => (Some(section), field),
            _ => {
                return Err("it must have three parts, vault/item/field, or four, \
                     vault/item/section/field"
                    .into());
            }
        };
        let part = |name, text| {
            part(name, text, ALLOWED).map_err(|reason| {
                format!("{reason}; what has a name with other characters goes by its id")
            })
        };
        Ok(Self {
            vault: part("vault", parts[0])?,
            item: part("item", parts[1])?,
            section: section
                .map(|section| part("section", section))
                .transpose()?,
            field: part("field", field)?,
            attribute,
        })
    }
}

fn parse_query(query: &str) -> Result<Attribute, String> {
    match query {
        "attribute=otp" | "attribute=totp" => Ok(Attribute::OneTimePassword),
        "ssh-format=openssh" => {
            Err("Larder does not convert SSH keys: keep the key in a text field".into())
        }
        _ => Err("after the ? only attribute=otp is possible".into()),
    }
}

impl fmt::Display for OnePasswordReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op://{}/{}/", self.vault, self.item)?;
        if let Some(section) = &self.section {
            write!(f, "{section}/")?;
        }
        f.write_str(&self.field)?;
        match self.attribute {
            Some(Attribute::OneTimePassword) => f.write_str("?attribute=otp"),
            None => Ok(()),
        }
    }
}
