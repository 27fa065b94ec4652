//! `dfs top`.

use super::Context;
use crate::exit::{About as _, Exit, Failure, Result};
use crate::output::{Meter, Report as _};
use console::Term;
use dfs_client::{Client, Code};
use dfs_stdx::Clock;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

/// More often, and the master would mostly answer us.
const INTERVAL_MIN: Duration = Duration::from_millis(200);
const EXAMPLES: &str = "\
Examples:
  dfs top                     until Ctrl-C
  dfs top --interval 10       every ten seconds
  dfs top | cat               one look, rates over one interval
  dfs top --json | jq '.servers[] | {node, read_bytes_per_s, packet_bytes_per_s}'

READ/s and WRITE/s count what each chunkserver answers and takes: a byte written with three copies is taken three times.
COPY/s is what it pulls from the others: new replicas, and what it missed.";

/// Watch the cluster: servers, rates, repair
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    interval: f64,
}

/// Shows it again and again on a terminal, else once.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let interval = Duration::try_from_secs_f64(args.interval)
        .ok()
        .filter(|interval| *interval >= INTERVAL_MIN)
        .ok_or_else(|| {
            Failure::new(
                Code::InvalidArgument,
                "an interval is a number of seconds from 0.2",
            )
        })?;
    let client = context.connect().await?;
    let mut looks = Looks {
        client: &client,
        clock: Clock::system(),
        meter: Meter::default(),
    };
    // The first look has nothing to compare with.
    looks.take().await.about(context.masters())?;
    if context.console.json || !io::stdout().is_terminal() {
        tokio::time::sleep(interval).await;
        let top = looks.take().await.about(context.masters())?;
        context.console.print(&top)?;
        return Ok(Exit::Ok);
    }
    let screen = Screen::begin()?;
    let shown = tokio::select! {
        shown = looks.show(&screen, interval) => shown,
        stopped = super::node::stop_requested() => stopped,
    };
    drop(screen);
    shown.map(|()| Exit::Ok)
}

struct Looks<'a> {
    client: &'a Client,
    clock: Clock,
    meter: Meter,
}

impl Looks<'_> {
    async fn take(&mut self) -> dfs_client::Result<crate::output::Top> {
        let glance = self.client.glance().await?;
        Ok(self.meter.look(glance, self.clock.now()))
    }

    /// For ever; a master that is away is waited for.
    async fn show(&mut self, screen: &Screen, interval: Duration) -> Result<()> {
        loop {
            let mut text = Vec::new();
            match self.take().await {
                Ok(top) => top.human(&mut text)?,
                Err(error) if error.retry() == dfs_client::Retry::Never => return Err(error.into()),
                Err(error) => writeln!(text, "the master does not answer: {error}")?,
            }
            screen.show(&String::from_utf8_lossy(&text))?;
            tokio::time::sleep(interval).await;
        }
    }
}

/// The terminal while we have it; what was on it comes back.
struct Screen(Term);

impl Screen {
    fn begin() -> io::Result<Screen> {
        let term = Term::buffered_stdout();
        // The other screen of the terminal.
        term.write_str("\x1b[?1049h")?;
        term.hide_cursor()?;
        term.flush()?;
        Ok(Screen(term))
    }

    /// In place of what was there; lines and columns that do not fit are left out.
    fn show(&self, text: &str) -> io::Result<()> {
        let (rows, columns) = self.0.size();
        self.0.move_cursor_to(0, 0)?;
        for line in text.lines().take(usize::from(rows).saturating_sub(1)) {
            self.0.clear_line()?;
            self.0
                .write_line(&line.chars().take(columns.into()).collect::<String>())?;
        }
        self.0.clear_to_end_of_screen()?;
        self.0.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing put right.
        let _ = self.0.show_cursor();
        let _ = self.0.write_str("\x1b[?1049l");
        let _ = self.0.flush();
    }
}
