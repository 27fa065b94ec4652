//! `dfs xattr`.

use super::Context;
use crate::exit::{About as _, Exit, Result};
use crate::output::{Done, Report};
use crate::path::RemotePath;
use base64::Engine as _;
use dfs_client::XattrMode;
use serde::Serialize;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;

const EXAMPLES: &str = "\
Examples:
  dfs xattr set /photo.jpg user.album spring
  dfs xattr get /photo.jpg user.album
  dfs xattr list /photo.jpg
  dfs xattr remove /photo.jpg user.album";

/// Show and change extended attributes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print a value, byte for byte
    Get {
        /// Of what
        path: RemotePath,
        /// Such as user.album
        name: OsString,
    },
    /// Set a value
    Set {
        /// Of what
        path: RemotePath,
        /// Such as user.album
        name: OsString,
        /// The value
        value: OsString,
    },
    /// Print the names
    List {
        /// Of what
        path: RemotePath,
    },
    /// Remove an attribute
    Remove {
        /// Of what
        path: RemotePath,
        /// Such as user.album
        name: OsString,
    },
}

/// A value: lossy, and exact in base64.
#[derive(Debug, Serialize)]
struct Value {
    value: String,
    value_b64: String,
    #[serde(skip)]
    raw: Vec<u8>,
}

impl Report for Value {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.raw)?;
        out.write_all(b"\n")
    }
}

#[derive(Debug, Serialize)]
struct Names {
    names: Vec<String>,
}

impl Report for Names {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.names.iter().try_for_each(|name| writeln!(out, "{name}"))
    }
}

/// Does it.
pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit> {
    let client = context.connect().await?;
    match args.what {
        What::Get { path, name } => {
            let raw = client.get_xattr(&path, name.as_bytes()).await.about(&path)?;
            context.console.print(&Value {
                value: String::from_utf8_lossy(&raw).into_owned(),
                value_b64: base64::engine::general_purpose::STANDARD.encode(&raw),
                raw,
            })?;
        }
        What::Set { path, name, value } => {
            let set = client.set_xattr(&path, name.as_bytes(), value.as_bytes(), XattrMode::Set);
            set.await.about(&path)?;
            context.console.print(&Done {})?;
        }
        What::List { path } => {
            let names = client.list_xattrs(&path).await.about(&path)?;
            let names = names
                .iter()
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect();
            context.console.print(&Names { names })?;
        }
        What::Remove { path, name } => {
            client.remove_xattr(&path, name.as_bytes()).await.about(&path)?;
            context.console.print(&Done {})?;
        }
    }
    Ok(Exit::Ok)
}
