//! pjdfstest from crates.io: what POSIX says about names, modes, owners and times.

use crate::place::Place;
use crate::tool::{Outcome, Tool, last};
use crate::{rig, scaled};
use anyhow::ensure;

/// What ext4 skips here (read-only remounts), and flags and birth times that Linux file systems lack.
const SKIPPED_MAX: usize = 13 + 3;

#[test]
fn names_modes_owners_and_times_are_as_posix_says() {
    let name = "pjdfstest::names_modes_owners_and_times_are_as_posix_says";
    rig(name, 20, &["pjdfstest"], || {
        // In debug builds a few kinds of cases show that the rig works.
        let patterns: &[&str] = match scaled("DFS_PJD_ALL", 1, 0) {
            0 => &["unlink", "rename", "open"],
            _ => &[],
        };
        suite("0.01", patterns)
    });
}

#[test]
fn times_differ_where_a_second_has_passed() {
    let name = "pjdfstest::times_differ_where_a_second_has_passed";
    rig(name, 30, &["pjdfstest"], || {
        let patterns: &[&str] = match scaled("DFS_PJD_ALL", 1, 0) {
            0 => &["mkfifo"],
            _ => &[],
        };
        suite("1.1", patterns)
    });
}

fn suite(naptime: &str, patterns: &[&str]) -> anyhow::Result<()> {
    let place = Place::one()?;
    let second = place.local("second")?;
    let config = place.local("settings")?.join("pjdfstest.toml");
    let settings = format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nutime_now = {{}}\nutimensat = {{}}\n\
         [settings]\nnaptime = {naptime}\nallow_remount = false\n\
         [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]\n"
    );
    std::fs::write(&config, settings)?;
    let outcome = Tool::new(1_700, "pjdfstest")
        .arg("-c")
        .arg(&config)
        .arg("-p")
        .arg(place.at(0))
        .arg("-s")
        .arg(&second)
        .args(patterns)
        .run()?;
    judge(naptime, &outcome, patterns.is_empty())
}

/// Counts the lines, for the summary is in colours.
fn judge(naptime: &str, outcome: &Outcome, all: bool) -> anyhow::Result<()> {
    let text = plain(&outcome.text);
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), Vec::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let mut why = || lines.peek().map_or("", |line| line.trim()).to_owned();
        match line.rsplit_once(' ').map(|(name, word)| (name.trim(), word)) {
            Some((_, "ok")) => passed += 1,
            Some((name, "FAILED")) => failed.push(format!("{name}: {}", why())),
            Some((name, "skipped")) => skipped.push(format!("{name}: {}", why())),
            Some(_) | None => {}
        }
    }
    for case in &failed {
        println!("failed: {case}");
    }
    for case in &skipped {
        println!("not run: {case}");
    }
    println!(
        "pjdfstest at {naptime}: {passed} passed, {} failed, {} skipped",
        failed.len(),
        skipped.len()
    );
    ensure!(passed > 0 && outcome.status.success(), "{}", last(&text));
    ensure!(!all || passed > 380, "only {passed} cases ran");
    ensure!(failed.is_empty(), "{} cases failed", failed.len());
    ensure!(
        skipped.len() <= SKIPPED_MAX,
        "{} cases were skipped",
        skipped.len()
    );
    Ok(())
}

/// Without the terminal's colours.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for (n, piece) in text.split('\u{1b}').enumerate() {
        plain += match n {
            0 => piece,
            _ => piece.split_once('m').map_or("", |(_, rest)| rest),
        };
    }
    plain
}
