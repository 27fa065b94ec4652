//! The list of what is not in order yet. It may only shrink: an entry that is not needed, or grants more than is
//! needed, is itself a finding.

use crate::finding::Finding;
use crate::house::House;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs;

/// Where the list is.
const LIST: &str = "xtask/exceptions.toml";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    exception: Vec<Exception>,
}

/// What is excused: all findings of a rule in a file about a subject.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    file: String,
    rule: String,
    /// The word, function or package, as the finding names it.
    subject: String,
    /// For sizes: what it is today.
    size: Option<usize>,
    /// Why it is so.
    reason: String,
}

/// Takes out what is excused and adds what is wrong with the list.
pub(crate) fn settle(house: &House, found: Vec<Finding>) -> Result<Vec<Finding>> {
    let text = fs::read_to_string(house.root.join(LIST)).context(LIST)?;
    let list: List = toml::from_str(&text).context(LIST)?;
    Ok(settle_with(&list.exception, found))
}

fn settle_with(list: &[Exception], found: Vec<Finding>) -> Vec<Finding> {
    let wrong = list
        .iter()
        .filter_map(|exception| exception.fault(&found))
        .collect::<Vec<_>>();
    let excused = |finding: &Finding| list.iter().any(|exception| exception.excuses(finding));
    found
        .into_iter()
        .filter(|finding| !excused(finding))
        .chain(wrong)
        .collect()
}

impl Exception {
    fn is_about(&self, finding: &Finding) -> bool {
        self.file == finding.file && self.rule == finding.rule && self.subject == finding.subject
    }

    fn excuses(&self, finding: &Finding) -> bool {
        self.is_about(finding) && finding.size <= self.size
    }

    /// What is wrong with the entry itself.
    fn fault(&self, found: &[Finding]) -> Option<Finding> {
        let needed = found
            .iter()
            .filter(|finding| self.is_about(finding))
            .max_by_key(|finding| finding.size);
        let advice = match needed {
            None => "nothing needs this exception any more: take it out".to_owned(),
            Some(_) if self.reason.trim().is_empty() => "say why".to_owned(),
            Some(finding) if finding.size < self.size => {
                format!("it shrank: set size = {}", finding.size.unwrap_or_default())
            }
            Some(_) => return None,
        };
        Some(Finding::new(
            LIST,
            0,
            "exceptions",
            format!("{} in {}", self.subject, self.file),
            advice,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(size: usize) -> Finding {
        Finding {
            size: Some(size),
            ..Finding::new("a.rs", 0, "file-size", "a.rs", "shrink")
        }
    }

    fn excused(size: usize) -> Exception {
        let (file, rule, subject) = ("a.rs".to_owned(), "file-size".to_owned(), "a.rs".to_owned());
        Exception {
            file,
            rule,
            subject,
            size: Some(size),
            reason: "old".to_owned(),
        }
    }

    #[test]
    fn an_exception_excuses_what_it_names_and_no_more() {
        assert!(settle_with(&[excused(600)], vec![found(600)]).is_empty());
        assert_eq!(settle_with(&[excused(600)], vec![found(601)]), [found(601)]);
    }

    #[test]
    fn an_exception_must_shrink_and_go() {
        let rules = |found: Vec<Finding>| found.iter().map(|f| f.rule).collect::<Vec<_>>();
        assert_eq!(
            rules(settle_with(&[excused(600)], vec![found(590)])),
            ["exceptions"]
        );
        assert_eq!(rules(settle_with(&[excused(600)], vec![])), ["exceptions"]);
    }
}
