//! Lines that a text lost and got.

/// More lines than this (of both texts, multiplied) are not compared one by one.
const MOST_CELLS: usize = 4_000_000;

/// `- …` and `+ …` lines, in order; `None` if the texts are too long to compare.
pub(super) fn changed(old: &str, new: &str) -> Option<Vec<String>> {
    let (mut old, mut new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    // What is the same at both ends needs no table.
    while !old.is_empty() && old.first() == new.first() {
        old.remove(0);
        new.remove(0);
    }
    while !old.is_empty() && old.last() == new.last() {
        old.pop();
        new.pop();
    }
    if (old.len() + 1).checked_mul(new.len() + 1)? > MOST_CELLS {
        return None;
    }
    // Longest common subsequence from each place to the end.
    let width = new.len() + 1;
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            common[i * width + j] = match a == b {
                true => common[(i + 1) * width + j + 1] + 1,
                false => common[(i + 1) * width + j].max(common[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    loop {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a == b => (i, j) = (i + 1, j + 1),
            (Some(a), b)
                if b.is_none() || common[(i + 1) * width + j] >= common[i * width + j + 1] =>
            {
                out.push(format!("- {a}"));
                i += 1;
            }
            (_, Some(b)) => {
                out.push(format!("+ {b}"));
                j += 1;
            }
            (_, None) => return Some(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_not_shown() {
        let diff = |a, b| changed(a, b).unwrap().join("|");
        assert_eq!(diff("a\nb\nc\n", "a\nb\nc\n"), "");
        assert_eq!(diff("a\nb\nc\n", "a\nx\nc\n"), "- b|+ x");
        assert_eq!(diff("a\nb\n", "b\nc\n"), "- a|+ c");
        assert_eq!(diff("", "a\nb\n"), "+ a|+ b");
        assert_eq!(diff("a\n", ""), "- a");
        assert_eq!(diff("k\na\nb\nk\n", "k\nb\na\nk\n"), "- a|+ a");
    }

    proptest::proptest! {
        #[test]
        fn the_new_text_follows_from_the_old_one(a in "[ab\n]{0,30}", b in "[ab\n]{0,30}") {
            let changes = changed(&a, &b).unwrap();
            let count = |sign: &str, text: &str| {
                let net = text.lines().count();
                (changes.iter().filter(|line| line.starts_with(sign)).count(), net)
            };
            let ((removed, old), (added, new)) = (count("- ", &a), count("+ ", &b));
            proptest::prop_assert_eq!(old - removed, new - added);
            proptest::prop_assert_eq!(changes.is_empty(), a.lines().eq(b.lines()));
        }
    }
}
