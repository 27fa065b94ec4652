//! `dfs`: one binary with every role and every tool. What was typed is in [`args`], what is meant in [`settings`],
//! what is done in [`commands`], what is said in [`output`], and how it ends in [`exit`].

mod args;
mod commands;
mod exit;
mod invocation;
mod output;
mod path;
mod settings;

use args::Args;
use clap::Parser as _;
use commands::Context;
use exit::{Exit, Failure};
use output::Console;
use std::cell::OnceCell;
use std::process::ExitCode;

fn main() -> ExitCode {
    match Args::try_parse_from(invocation::arguments(std::env::args_os())) {
        Ok(args) => run(args).into(),
        Err(error) => refuse(&error).into(),
    }
}

/// Carries out one command on a runtime of its size.
fn run(args: Args) -> Exit {
    let context = Context {
        console: Console::new(args.command.name(), args.json),
        masters: args.master,
        connected: OnceCell::new(),
    };
    let runtime = match args.command.runtime() {
        Ok(runtime) => runtime,
        Err(error) => return context.console.finish(Err(error.into())),
    };
    let outcome = runtime.block_on(Box::pin(args.command.run(&context)));
    let exit = context.console.finish(outcome);
    runtime.block_on(context.disconnect());
    // What still runs (a read ahead, a thread in a system call) has nobody to work for.
    runtime.shutdown_background();
    exit
}

/// Says what was typed wrongly; `--help` and `--version` come this way too.
fn refuse(error: &clap::Error) -> Exit {
    if error.use_stderr() && std::env::args_os().any(|arg| arg == "--json") {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        let message = line.strip_prefix("error: ").unwrap_or(line);
        let failure = Failure::new(dfs_proto::Code::InvalidArgument, message);
        output::complain_line(failure.json().as_bytes());
        return Exit::Usage;
    }
    // Nobody may be listening: then there is nobody to tell.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Ok }
}
