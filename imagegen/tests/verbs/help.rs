//! Help worth reading, and that it stays so.

use clap::{Args, Command};
use imagegen::diff::DiffArgs;
use imagegen::inspect::InspectArgs;
use imagegen::verify::VerifyArgs;

fn help<A: Args>(name: &'static str) -> String {
    let command = A::augment_args(Command::new(name)).term_width(100);
    let text = command.clone().render_long_help().to_string();
    let long = text.lines().find(|line| line.chars().count() > 100);
    assert_eq!(long, None, "{text}");
    text
}

#[test]
fn help_of_inspect() {
    insta::assert_snapshot!(help::<InspectArgs>("inspect"));
}

#[test]
fn help_of_verify() {
    insta::assert_snapshot!(help::<VerifyArgs>("verify"));
}

#[test]
fn help_of_diff() {
    insta::assert_snapshot!(help::<DiffArgs>("diff"));
}
