//! What is meant: for each role the settings in rising order of authority: default, file, environment, flags.
//!
//! Flags and environment arrive together (clap knows which of the two counts); the file fills what they leave open.

use crate::exit::{Failure, Result};
use dfs_proto::{Code, limits};
use dfs_stdx::size::Size;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the master is unless something else is said.
pub(crate) const MASTER_ADDR: &str = "127.0.0.1:7700";
/// Where a chunkserver listens unless something else is said.
pub(crate) const CHUNKSERVER_ADDR: &str = "127.0.0.1:7710";
/// A disk keeps so much free unless something else is said.
pub(crate) const RESERVE: Size = Size(1 << 30);
/// Variables that are not settings of a role.
const OTHER_VARIABLES: &[&str] = &["DFS_LOG", "DFS_MASTER", "DFS_PARENT", "DFS_CONFIG"];

/// How fast a cluster's clocks run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Profile {
    /// The durations of the documentation.
    #[default]
    Normal,
    /// A tenth of them: for tests of failure and repair.
    Test,
}

impl Profile {
    /// Every duration of the cluster is divided by it.
    #[must_use]
    pub(crate) fn time_divisor(self) -> u32 {
        match self {
            Profile::Normal => 1,
            Profile::Test => 10,
        }
    }
}

/// Settings of a master, each of which may be left open.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub(crate) struct MasterLayer {
    /// Where to listen
    #[arg(long, env = "DFS_LISTEN", value_name = "HOST:PORT", value_parser = crate::args::address)]
    pub(crate) listen: Option<String>,
    /// The address others reach it at, if it is not the one it listens on
    #[arg(long, env = "DFS_ADVERTISE", value_name = "HOST:PORT", value_parser = crate::args::address)]
    pub(crate) advertise: Option<String>,
    /// Serve metrics for Prometheus at http://HOST:PORT/metrics, and /healthz
    #[arg(long, env = "DFS_METRICS", value_name = "HOST:PORT", value_parser = crate::args::address)]
    pub(crate) metrics: Option<String>,
    /// Where its log and its view are kept
    #[arg(long, env = "DFS_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Largest chunk of a new cluster, a multiple of 64KiB up to 64MiB; later the stored one counts
    #[arg(long, env = "DFS_CHUNK_SIZE", value_name = "SIZE")]
    pub(crate) chunk_size: Option<Size>,
    /// Replicas of each chunk in a new cluster; later the stored number counts
    #[arg(long, env = "DFS_REPLICATION", value_name = "N")]
    pub(crate) replication: Option<u32>,
    /// Seconds a chunk waits for a dead chunkserver to come back before it is copied; not if one copy is left [default: 60]
    #[arg(long, env = "DFS_REPAIR_AFTER", value_name = "SECONDS")]
    pub(crate) repair_after: Option<u64>,
    /// How fast a new cluster's clocks run
    #[arg(long, env = "DFS_PROFILE", hide = true)]
    pub(crate) profile: Option<Profile>,
}

/// A master's settings, complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Master {
    /// "host:port".
    pub(crate) listen: String,
    /// "host:port", if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advertise: Option<String>,
    /// "host:port" of its metrics, if they are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<String>,
    /// Its folder.
    pub(crate) data_dir: PathBuf,
    /// Of a new cluster.
    pub(crate) chunk_size: Size,
    /// Of a new cluster.
    pub(crate) replication: u32,
    /// Seconds, if it is not the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) repair_after: Option<u64>,
    /// Of a new cluster.
    pub(crate) profile: Profile,
}

impl MasterLayer {
    /// Completes what was typed from the file and the defaults.
    ///
    /// # Errors
    /// The file's, or a value no cluster can live with.
    pub(crate) fn complete(self, config: Option<&Path>) -> Result<Master> {
        let file: MasterLayer = read(config)?;
        let master = Master {
            listen: self.listen.or(file.listen).unwrap_or_else(|| MASTER_ADDR.into()),
            advertise: self.advertise.or(file.advertise),
            metrics: self.metrics.or(file.metrics),
            data_dir: self
                .data_dir
                .or(file.data_dir)
                .unwrap_or_else(|| "dfs-data/master".into()),
            chunk_size: self
                .chunk_size
                .or(file.chunk_size)
                .unwrap_or(Size(limits::CHUNK_BYTES_MAX)),
            replication: self.replication.or(file.replication).unwrap_or(3),
            repair_after: self.repair_after.or(file.repair_after),
            profile: self.profile.or(file.profile).unwrap_or_default(),
        };
        if master.parameters().are_valid() {
            return Ok(master);
        }
        Err(Failure::new(
            Code::InvalidArgument,
            format!(
                "a cluster has chunks of a multiple of 64KiB up to 64MiB and 1 to {} replicas, not {} and {}",
                limits::GOAL_MAX,
                master.chunk_size,
                master.replication
            ),
        ))
    }
}

impl Master {
    /// What a new cluster is born with.
    #[must_use]
    pub(crate) fn parameters(&self) -> limits::Parameters {
        limits::Parameters {
            chunk_bytes: self.chunk_size.bytes(),
            goal: self.replication,
            time_divisor: self.profile.time_divisor(),
        }
    }
}

/// Settings of a chunkserver, each of which may be left open. Where its masters are is a setting of every command.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChunkserverLayer {
    /// Masters, in the file only: as a flag it is `--master`
    #[arg(skip)]
    pub(crate) master: Option<Vec<String>>,
    /// Where to listen
    #[arg(long, env = "DFS_LISTEN", value_name = "HOST:PORT", value_parser = crate::args::address)]
    pub(crate) listen: Option<String>,
    /// The address others reach it at, if it is not the one it listens on
    #[arg(long, env = "DFS_ADVERTISE", value_name = "HOST:PORT", value_parser = crate::args::address)]
    pub(crate) advertise: Option<String>,
    /// Serve metrics for Prometheus at http://HOST:PORT/metrics, and /healthz
    #[arg(long, env = "DFS_METRICS", value_name = "HOST:PORT", value_parser = crate::args::address)]
    pub(crate) metrics: Option<String>,
    /// A folder for chunks, one for each disk; may be repeated (in DFS_DATA_DIR separated by colons)
    #[arg(long, value_name = "DIR")]
    #[serde(default)]
    pub(crate) data_dir: Vec<PathBuf>,
    /// Name of the machine: replicas of a chunk are kept on different ones [default: the host's name]
    #[arg(long, env = "DFS_HOST", value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// Name of the rack: replicas are spread over racks too
    #[arg(long, env = "DFS_RACK", value_name = "NAME")]
    pub(crate) rack: Option<String>,
    /// Bytes a second that repair may move here while clients ask for something [default: 32MiB]
    #[arg(long, env = "DFS_REPAIR_RATE", value_name = "SIZE")]
    pub(crate) repair_rate: Option<Size>,
    /// What is kept free on each disk [default: 1GiB]
    #[arg(long, env = "DFS_RESERVE", value_name = "SIZE")]
    pub(crate) reserve: Option<Size>,
    /// Take an empty folder where a known disk was expected as a new disk
    #[arg(long, env = "DFS_ACCEPT_NEW_DISK")]
    #[serde(default)]
    pub(crate) accept_new_disk: bool,
}

/// A chunkserver's settings, complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Chunkserver {
    /// "host:port" of each master.
    pub(crate) master: Vec<String>,
    /// "host:port".
    pub(crate) listen: String,
    /// "host:port", if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advertise: Option<String>,
    /// "host:port" of its metrics, if they are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<String>,
    /// One for each disk.
    pub(crate) data_dir: Vec<PathBuf>,
    /// Failure domain.
    pub(crate) host: String,
    /// Failure domain.
    pub(crate) rack: String,
    /// Bytes a second, if it is not the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) repair_rate: Option<Size>,
    /// Kept free on each disk.
    pub(crate) reserve: Size,
    /// An empty folder may be a new disk.
    pub(crate) accept_new_disk: bool,
}

impl ChunkserverLayer {
    /// Completes what was typed (`masters` among it) from the file and the defaults.
    ///
    /// # Errors
    /// The file's.
    pub(crate) fn complete(self, masters: &[String], config: Option<&Path>) -> Result<Chunkserver> {
        let file: ChunkserverLayer = read(config)?;
        let mut master = masters.to_vec();
        if master.is_empty() {
            master = file.master.unwrap_or_else(|| vec![MASTER_ADDR.to_owned()]);
        }
        let mut data_dir = self.data_dir;
        if let (true, Some(list)) = (data_dir.is_empty(), std::env::var_os("DFS_DATA_DIR")) {
            data_dir = std::env::split_paths(&list).collect();
        }
        if data_dir.is_empty() {
            data_dir = file.data_dir;
        }
        if data_dir.is_empty() {
            data_dir.push("dfs-data/chunkserver".into());
        }
        Ok(Chunkserver {
            master,
            listen: self
                .listen
                .or(file.listen)
                .unwrap_or_else(|| CHUNKSERVER_ADDR.into()),
            advertise: self.advertise.or(file.advertise),
            metrics: self.metrics.or(file.metrics),
            data_dir,
            host: self.host.or(file.host).unwrap_or_else(hostname),
            rack: self.rack.or(file.rack).unwrap_or_default(),
            repair_rate: self.repair_rate.or(file.repair_rate),
            reserve: self.reserve.or(file.reserve).unwrap_or(RESERVE),
            accept_new_disk: self.accept_new_disk || file.accept_new_disk,
        })
    }
}

/// The machine's own name.
#[must_use]
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A complete set of settings as a file that says the same.
#[must_use]
pub(crate) fn as_toml<T: Serialize>(settings: &T) -> String {
    toml::to_string(settings).expect("settings are strings, numbers and lists of strings")
}

/// Variables that look like settings of `command` and are none: most likely typed wrongly.
#[must_use]
pub(crate) fn unknown_variables(command: &clap::Command) -> Vec<String> {
    let known: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_env).collect();
    std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("DFS_") && name != "DFS_DATA_DIR")
        .filter(|name| {
            !OTHER_VARIABLES.contains(&name.as_str()) && !known.iter().any(|k| *k == name.as_str())
        })
        .collect()
}

fn read<T: Default + serde::de::DeserializeOwned>(config: Option<&Path>) -> Result<T> {
    match config {
        Some(path) => Ok(dfs_stdx::settings::read(path)?),
        None => Ok(T::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dfs.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn what_was_typed_counts_more_than_the_file() {
        let (_folder, path) = file("listen = '10.0.0.1:7700'\nreplication = 2\nchunk_size = '1MiB'");
        let typed = MasterLayer {
            replication: Some(5),
            ..MasterLayer::default()
        };
        let master = typed.complete(Some(&path)).unwrap();
        assert_eq!((master.listen.as_str(), master.replication), ("10.0.0.1:7700", 5));
        assert_eq!(master.chunk_size, Size(1 << 20));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let (_folder, path) = file("lisen = '10.0.0.1:7700'");
        let failure = MasterLayer::default().complete(Some(&path)).unwrap_err();
        assert!(failure.text.contains("lisen"), "{failure}");
        let failure = ChunkserverLayer::default()
            .complete(&[], Some(&path))
            .unwrap_err();
        assert!(failure.text.contains("lisen"), "{failure}");
    }

    #[test]
    fn a_chunk_of_odd_size_is_refused() {
        let typed = MasterLayer {
            chunk_size: Some(Size(100)),
            ..MasterLayer::default()
        };
        assert!(typed.complete(None).is_err());
    }

    #[test]
    fn printed_settings_are_a_file_that_says_the_same() {
        let settings = ChunkserverLayer::default()
            .complete(&["a:1".into()], None)
            .unwrap();
        let (_folder, path) = file(&as_toml(&settings));
        assert_eq!(
            ChunkserverLayer::default().complete(&[], Some(&path)).unwrap(),
            settings
        );
        let settings = MasterLayer::default().complete(None).unwrap();
        let (_folder, path) = file(&as_toml(&settings));
        assert_eq!(MasterLayer::default().complete(Some(&path)).unwrap(), settings);
    }
}
