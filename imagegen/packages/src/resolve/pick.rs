//! Which version of a package is taken.

use super::Wish;
use crate::index::{Stanza, Universe};
use crate::relation::Relation;
use crate::version;

/// The version of a package that would be taken without anybody's conditions.
pub(crate) fn candidate<'a>(
    universe: &Universe<'a>,
    wish: &Wish<'_, 'a>,
    name: &str,
) -> Option<Stanza<'a>> {
    pick(universe, wish, name, None, None)
}

/// The version of a package that is taken; `beside` is the suite of who asks.
pub(super) fn pick<'a>(
    universe: &Universe<'a>,
    wish: &Wish<'_, 'a>,
    name: &str,
    relation: Option<&Relation<'_>>,
    beside: Option<usize>,
) -> Option<Stanza<'a>> {
    if let Some(held) = wish.held.get(name)
        && relation.is_none_or(|r| r.admits(held.version))
    {
        return Some(*held);
    }
    let suites = &universe.suites;
    let best = |usable: &dyn Fn(usize) -> bool| {
        universe
            .named(name)
            .filter(|s| usable(s.suite))
            .filter(|s| relation.is_none_or(|r| r.admits(s.version)))
            // Of equal versions the suite that is named first.
            .max_by(|a, b| version::compare(a.version, b.version).then(b.suite.cmp(&a.suite)))
            .copied()
    };
    if let Some(pin) = wish.pins.get(name) {
        return best(&|suite| suites[suite].name == *pin);
    }
    let automatic =
        best(&|suite| !suites[suite].not_automatic && wish.suites.contains(&suites[suite].name));
    // Only who comes from backports may draw on backports.
    automatic.or_else(|| beside.and_then(|beside| best(&|suite| suite == beside)))
}
