//! What the doubles of 1Password hold: vaults of items of fields.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A vault.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Counts changes.
    pub content_version: u64,
    /// What is in it.
    pub items: Vec<Item>,
}

/// An item of a vault.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Whether it is in the trash (archived, for Connect).
    pub trashed: bool,
    /// Its fields.
    pub fields: Vec<Field>,
}

/// A field of an item.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its id.
    pub id: String,
    /// Its label.
    pub label: String,
    /// Id and label of its section.
    pub section: Option<(String, String)>,
    /// What it is.
    pub kind: Kind,
    /// Its value.
    pub value: String,
}

/// Kinds of fields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Shown.
    Text,
    /// Hidden.
    Concealed,
    /// An otpauth URI.
    OneTimePassword,
}

/// Vaults that a test changes while a server shows them.
#[derive(Clone, Debug, Default)]
pub struct Library(Arc<Mutex<Vec<Shelf>>>);

impl Library {
    /// The vaults.
    pub fn lock(&self) -> MutexGuard<'_, Vec<Shelf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a hidden field without a section; makes vault and item where they are missing.
    pub fn set(&self, vault: &str, item: &str, field: &str, value: &str) {
        self.put(
            vault,
            item,
            Field {
                id: crate::id(),
                label: field.into(),
                section: None,
                kind: Kind::Concealed,
                value: value.into(),
            },
        );
    }

    /// Adds a field, or replaces the one of the same label and section.
    pub fn put(&self, vault: &str, item: &str, field: Field) {
        let mut vaults = self.lock();
        let vault = match vaults.iter().position(|v| v.name == vault) {
            Some(index) => &mut vaults[index],
            None => {
                vaults.push(Shelf {
                    id: crate::id(),
                    name: vault.into(),
                    content_version: 0,
                    items: Vec::new(),
                });
                vaults.last_mut().expect("one was pushed")
            }
        };
        vault.content_version += 1;
        let item = match vault.items.iter().position(|i| i.title == item) {
            Some(index) => &mut vault.items[index],
            None => {
                vault.items.push(Item {
                    id: crate::id(),
                    title: item.into(),
                    trashed: false,
                    fields: Vec::new(),
                });
                vault.items.last_mut().expect("one was pushed")
            }
        };
        let same = |old: &Field| old.label == field.label && old.section == field.section;
        match item.fields.iter().position(same) {
            Some(index) => {
                item.fields[index] = Field {
                    id: item.fields[index].id.clone(),
                    ..field
                }
            }
            None => item.fields.push(field),
        }
    }

    /// Changes a vault by hand, counted as one change.
    ///
    /// # Panics
    /// If there is no such vault.
    pub fn change(&self, vault: &str, change: impl FnOnce(&mut Shelf)) {
        let mut vaults = self.lock();
        let vault = vaults
            .iter_mut()
            .find(|v| v.name == vault)
            .expect("a vault of that name");
        change(vault);
        vault.content_version += 1;
    }
}
