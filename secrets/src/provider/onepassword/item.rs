//! An item with its fields, and which of them a reference means.

use std::time::Duration;

use zeroize::Zeroizing;

use super::super::text::SecretText;
use super::otp;
use crate::error::{Class, FetchError};
use crate::reference::{Attribute, OnePasswordReference};

/// An item.
#[derive(Debug, Default)]
pub struct Item {
    pub(crate) fields: Vec<Field>,
}

/// A field of an item.
#[derive(Debug, Default)]
pub(crate) struct Field {
    pub(crate) id: String,
    pub(crate) label: String,
    /// Id and label of its section.
    pub(crate) section: Option<(String, String)>,
    pub(crate) value: SecretText,
    /// Whether the value is an otpauth URI, or its secret alone.
    pub(crate) one_time: bool,
}

fn same(wanted: &str, id: &str, label: &str) -> bool {
    id == wanted || label.to_lowercase() == wanted.to_lowercase()
}

impl Item {
    /// The value that a reference means; the time is for one-time codes, since 1970.
    pub(super) fn value(
        &self,
        reference: &OnePasswordReference,
        now: Duration,
    ) -> Result<Zeroizing<String>, FetchError> {
        let in_section = |field: &&Field| match (&reference.section, &field.section) {
            (None, _) => true,
            (Some(wanted), Some((id, label))) => same(wanted, id, label),
            (Some(_), None) => false,
        };
        if let Some(section) = &reference.section
            && !self.fields.iter().any(|field| in_section(&field))
        {
            let what = format!("the item {:?} has no section {section:?}", reference.item);
            return Err(FetchError::new(Class::Missing, what));
        }
        let wanted = &reference.field;
        let matches: Vec<&Field> = self
            .fields
            .iter()
            .filter(in_section)
            .filter(|field| same(wanted, &field.id, &field.label))
            .collect();
        let field = match matches[..] {
            [field] => field,
            [] => {
                let what = format!(
                    "the item {:?} has no field {wanted:?} (attached files are not supported)",
                    reference.item
                );
                return Err(FetchError::new(Class::Missing, what));
            }
            _ => {
                let what = format!(
                    "the item {:?} has {} fields {wanted:?}: name the section, or use the id",
                    reference.item,
                    matches.len()
                );
                return Err(FetchError::new(Class::Ambiguous, what));
            }
        };
        match reference.attribute {
            None => Ok(field.value.0.clone()),
            Some(Attribute::OneTimePassword) if !field.one_time => {
                let what = format!("the field {wanted:?} is no one-time password");
                Err(FetchError::new(Class::Invalid, what))
            }
            Some(Attribute::OneTimePassword) => otp::code(&field.value.0, now)
                .map_err(|reason| FetchError::new(Class::Invalid, reason)),
        }
    }
}
