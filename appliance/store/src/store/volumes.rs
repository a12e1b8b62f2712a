//! What concerns all volumes: opening them, cleaning, listing.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::Inner;
use super::shelf::Shelf;
use crate::Error;
use crate::format::cleans::Clean;
use crate::format::record::{Head, NAMES, PINNED};
use crate::object::Info;
use crate::volume::{Look, Threads, Volume};

impl Inner {
    pub(super) fn names_are_there(&self, volume: &Volume, head: &Head) -> bool {
        if head.flags & NAMES == 0 {
            return true;
        }
        let there = head.names.iter().all(|name| {
            let shelf = &self.shelves[self.members.owner(*name)];
            shelf
                .volume()
                .is_ok_and(|volume| volume.index.touch(*name, volume.epoch()).is_some())
        });
        // During recovery the objects may only not be found yet.
        let recovering = || {
            let mut volumes = self.shelves.iter().filter_map(|shelf| shelf.volume().ok());
            volumes.any(|volume| volume.is_recovering())
        };
        if !there
            && !recovering()
            && let Some(slot) = volume.index.get(head.tag)
            && volume.drop_slot(&slot)
        {
            volume.counters.cascaded.add(1);
        }
        there
    }

    pub(super) fn check(&self) {
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        let closed: Vec<&Arc<Shelf>> = self
            .shelves
            .iter()
            .filter(|shelf| shelf.threads().is_err())
            .collect();
        if !closed.is_empty() {
            self.open(&closed);
        }
        for shelf in &self.shelves {
            if let Ok(volume) = shelf.volume() {
                // The status says how it went.
                let _ = volume.probe();
            }
        }
    }

    /// Opens volumes: all are looked at before the first is opened, because what one knows of
    /// cleans and of the list of volumes counts for all.
    fn open(&self, closed: &[&Arc<Shelf>]) {
        let fail = |shelf: &Shelf, error: &Error| {
            let threads = shelf.threads.write();
            let mut threads = threads.unwrap_or_else(PoisonError::into_inner);
            *threads = Err(error.to_string());
        };
        let mut looks = Vec::new();
        for shelf in closed {
            match Look::at(Arc::clone(&shelf.disk)) {
                Ok(look) => looks.push((*shelf, look)),
                Err(error) => fail(shelf, &error),
            }
        }
        let mut epoch = crate::volume::lock(&self.epoch);
        let newest = looks.iter().filter_map(|(_, look)| look.epoch());
        let newest = newest.max_by_key(|(number, _)| *number);
        let newest = newest.map(|(number, names)| (number, names == self.names));
        let (number, before) = match (*epoch, newest) {
            (Some(number), _) => (number, None),
            (None, Some((number, true))) => (number, None),
            (None, Some((number, false))) => (number + 1, Some(number)),
            (None, None) => (1, None),
        };
        for (_, look) in &looks {
            for clean in &look.cleans {
                self.generations.note(*clean);
            }
        }
        for (shelf, look) in looks {
            if look.epoch().is_some_and(|(known, _)| known > number) {
                let reason = format!(
                    "{}: knows a newer list of volumes; restart the service",
                    shelf.path()
                );
                fail(shelf, &Error::Unusable { reason });
                continue;
            }
            match self.open_one(shelf, look, number, before) {
                Ok(threads) => {
                    *epoch = Some(number);
                    let slot = shelf.threads.write();
                    *slot.unwrap_or_else(PoisonError::into_inner) = Ok(Arc::new(threads));
                }
                Err(error) => fail(shelf, &error),
            }
        }
    }

    fn open_one(
        &self,
        shelf: &Shelf,
        look: Look,
        epoch: u64,
        before: Option<u64>,
    ) -> Result<Threads, Error> {
        let mut known = std::collections::HashMap::new();
        for clean in &look.cleans {
            let generation = known.entry(clean.project).or_insert(0);
            *generation = clean.generation.max(*generation);
        }
        let now = self.clock.now();
        let found = look.join(&shelf.name, &self.names, epoch, before, now)?;
        let (generations, clock) = (Arc::clone(&self.generations), Arc::clone(&self.clock));
        let volume = Volume::open(found, &shelf.settings, generations, clock)?;
        if let Some(why) = &volume.label.emptied {
            log::warn!("{}: starts empty: {why}", shelf.path());
        }
        // What other volumes know and this one missed.
        for clean in self.generations.all() {
            if known
                .get(&clean.project)
                .is_none_or(|known| *known < clean.generation)
            {
                volume.write_clean(clean)?;
            }
        }
        let started = Threads::start(Arc::new(volume), self.threads);
        started.map_err(Error::io(shelf.disk.root(), "start the threads of"))
    }

    pub(super) fn clean(&self, project: [u8; 32]) -> Result<(), Error> {
        let now = self.clock.now();
        let clean = Clean {
            project,
            generation: now.max(self.generations.of(&project) + 1),
            time: now,
        };
        let mut outcome = Err(Error::Unusable {
            reason: "no volume can be used".into(),
        });
        for (number, volume) in self
            .shelves
            .iter()
            .filter_map(|shelf| shelf.volume().ok())
            .enumerate()
        {
            let written = volume.write_clean(clean);
            outcome = if number == 0 {
                written
            } else {
                outcome.and(written)
            };
        }
        self.generations.note(clean);
        outcome
    }

    pub(super) fn scan(&self, each: &mut dyn FnMut(Info) -> ControlFlow<()>) -> Result<(), Error> {
        for volume in self.shelves.iter().filter_map(|shelf| shelf.volume().ok()) {
            let mut go_on = true;
            volume.each_live(&mut |segment, entry, slot| {
                let Ok(head) = volume.head_of(segment, entry) else {
                    return ControlFlow::Continue(());
                };
                let current = self.generations.with(|| head.key.project_hash());
                if current != head.generation || !self.names_are_there(&volume, &head) {
                    return ControlFlow::Continue(());
                }
                let next = each(Info::new(&head, slot.flags() & PINNED != 0));
                go_on = next.is_continue();
                next
            });
            if !go_on {
                break;
            }
        }
        Ok(())
    }
}
