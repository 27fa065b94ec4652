//! Log lines on stderr: coloured on a terminal, plain elsewhere. `DFS_LOG` chooses what is shown.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable with the filter: `debug`, or `info,dfs_master=debug`.
pub const VARIABLE: &str = "DFS_LOG";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `DFS_LOG` is not a filter.
    #[error("{VARIABLE}: {0}")]
    Filter(#[from] tracing_subscriber::filter::FromEnvError),
    /// Something else in this process takes the log lines already.
    #[error("the log is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends this process's log to stderr. Call it once, in `main`; `default_level` (such as `info`) holds where
/// `DFS_LOG` does not say otherwise.
///
/// Of the libraries in `silent` nothing is shown unless `DFS_LOG` names them.
///
/// # Errors
/// `DFS_LOG` cannot be read, or this was called before.
pub fn init(default_level: tracing::Level, silent: &[&str]) -> Result<(), Error> {
    let mut filter = EnvFilter::builder()
        .with_default_directive(default_level.into())
        .with_env_var(VARIABLE)
        .from_env()?;
    let asked = std::env::var(VARIABLE).unwrap_or_default();
    for library in silent.iter().filter(|library| !asked.contains(*library)) {
        let directive = format!("{library}=off").parse();
        filter = filter.add_directive(directive.expect("the name of a library"));
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .finish()
        .try_init()?;
    Ok(())
}
