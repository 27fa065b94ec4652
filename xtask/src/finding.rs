//! One thing that is not as it should be.

use std::fmt;

/// What is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Path from the root of the workspace.
    pub(crate) file: String,
    /// From 1; 0 if it is about the whole file.
    pub(crate) line: usize,
    /// The rule's name, as in `exceptions.toml`.
    pub(crate) rule: &'static str,
    /// The offending word, function or package.
    pub(crate) subject: String,
    /// For rules about size: the size found.
    pub(crate) size: Option<usize>,
    /// What to do.
    pub(crate) advice: String,
}

impl Finding {
    /// A finding without a size.
    pub(crate) fn new(
        file: &str,
        line: usize,
        rule: &'static str,
        subject: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Finding {
            file: file.to_owned(),
            line,
            rule,
            subject: subject.into(),
            size: None,
            advice: advice.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}: {}",
            self.file, self.line, self.rule, self.subject, self.advice
        )
    }
}
