//! Programs from outside, run within a bound, their output kept.

use anyhow::{Context as _, ensure};
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use tempfile::NamedTempFile;

/// Lines shown of a program that failed.
const LAST_LINES: usize = 80;

/// A program to run.
pub(crate) struct Tool {
    command: Command,
    name: String,
    output: NamedTempFile,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    /// Both streams, as they came.
    pub(crate) text: String,
}

impl Tool {
    /// A program that is killed after so many seconds.
    pub(crate) fn new(seconds: u64, program: &str) -> Tool {
        let mut command = Command::new("timeout");
        command
            .args(["--signal=KILL", &seconds.to_string(), program])
            .stdin(Stdio::null())
            .env("LC_ALL", "C");
        Tool {
            command,
            name: program.to_owned(),
            output: NamedTempFile::new().expect("a file for its output"),
        }
    }

    /// A script of a shell that ends at the first command that fails.
    pub(crate) fn shell(seconds: u64, script: &str) -> Tool {
        Tool::new(seconds, "sh").args(["-euc", script])
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Tool {
        self.command.args(args);
        self
    }

    pub(crate) fn arg(self, arg: impl AsRef<OsStr>) -> Tool {
        self.args([arg])
    }

    pub(crate) fn within(mut self, folder: &Path) -> Tool {
        self.command.current_dir(folder);
        self
    }

    /// Starts it, and leaves it to the caller.
    pub(crate) fn start(mut self) -> anyhow::Result<Running> {
        let output: File = self.output.reopen()?;
        self.command.stdout(output.try_clone()?).stderr(output);
        let child = self.command.spawn().context("timeout")?;
        Ok(Running { tool: self, child })
    }

    /// Runs it to its end, whatever that is.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        self.start()?.ended()
    }

    /// Runs it; it must succeed. Returns its output.
    pub(crate) fn ok(self) -> anyhow::Result<String> {
        self.start()?.ok()
    }
}

/// A program on its way.
pub(crate) struct Running {
    tool: Tool,
    child: Child,
}

impl Running {
    pub(crate) fn is_done(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> anyhow::Result<Outcome> {
        let status = self.child.wait()?;
        let text = std::fs::read(self.tool.output.path())?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(Outcome { status, text })
    }

    /// Waits for its end, which must be a good one. Returns its output.
    pub(crate) fn ok(self) -> anyhow::Result<String> {
        let name = self.tool.name.clone();
        let args = format!("{:?}", self.tool.command.get_args().skip(2).collect::<Vec<_>>());
        let Outcome { status, text } = self.ended()?;
        ensure!(status.success(), "{name} {args}: {status}:\n{}", last(&text));
        Ok(text)
    }
}

/// The end of a long text.
pub(crate) fn last(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
