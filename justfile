# Recipes for people. CI needs none of them: it runs `.ci/run`.

# What there is.
default:
    @just --list

# All tests, as the README says.
test:
    cargo test --workspace

# Format and lints, as CI wants them.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# The rules of the house.
tidy:
    cargo xtask tidy

# What CI runs.
ci:
    .ci/run

# Licenses, advisories, bans and sources of all dependencies (`cargo install cargo-deny --locked`).
deny:
    cargo deny --all-features check

# Throughput against the smallest program that does the same work. The last line is JSON.
bench-floor:
    cargo run --release -p dfs-benches --bin bench-floor

# The data path row by row: small files, synced packets, random reads and writes, streams. The last line is JSON.
bench-data *options:
    cargo run --release -p dfs-benches --bin bench-data -- {{options}}

# Power cuts on loop-mounted file systems: of the master, of a chunkserver, of everything, so many each. Root only.
cuts count="100":
    DFS_CUTS={{count}} cargo test --release -p dfs --test crash -- --show-output --test-threads=1 power::

# SIGKILL for the master in a loop under load, so many times, and its return with many files.
kills count="100" files="100000":
    DFS_KILLS={{count}} DFS_FILES={{files}} cargo test --release -p dfs --test crash -- --show-output --test-threads=1 kill::

# Flipped bits, cut and exchanged chunk files, so many.
rot count="1000":
    DFS_ROTS={{count}} cargo test --release -p dfs --test crash -- --show-output --test-threads=1 rot::

# A chunkserver cut off from the master, overwritten elsewhere, read, so many times.
stale count="50":
    DFS_STALES={{count}} cargo test --release -p dfs --test crash -- --show-output --test-threads=1 stale::

# SIGKILL for head, middle, tail and master under record append of 50 producers, so many times.
records kills="1000":
    DFS_RECORD_KILLS={{kills}} cargo test --release -p dfs --test crash -- --show-output --test-threads=1 records::

# `put` and `get` over the death and the hang of a chunkserver.
hang:
    cargo test --release -p dfs --test crash -- --show-output --test-threads=1 hang::

# Breaks the product on purpose, once for each file in tests/mutants: the rig its first line names must notice.
prove-rigs:
    tests/mutants/prove

# pjdfstest (`cargo install pjdfstest@0.2.2 --locked`; needs libacl1-dev, acl) on a mount, at both nap times. Root only.
pjdfstest:
    cargo test --release -p dfs --test fuse -- --show-output --test-threads=1 pjdfstest::

# fsx (`cargo install fsx@0.3.2 --locked`) on a mount, so many seeds, half of them while chunkservers die. Root only.
fsx seeds="20" operations="40000":
    DFS_FSX_SEEDS=$(( {{seeds}} / 2 )) DFS_FSX_OPERATIONS={{operations}} cargo test --release -p dfs --test fuse -- --show-output --test-threads=1 fsx::

# fio with verification on a mount and from another one, so many MiB a job.
fio mib="256":
    DFS_FIO_MIB={{mib}} cargo test --release -p dfs --test fuse -- --show-output --test-threads=1 fio::

# stress-ng's file system stressors on a mount, so many seconds each.
stress seconds="5":
    DFS_STRESS_SECONDS={{seconds}} cargo test --release -p dfs --test fuse -- --show-output --test-threads=1 stress::

# Two mounts of one cluster, and mounts killed so many times.
mounts kills="100":
    DFS_MOUNT_KILLS={{kills}} DFS_APPENDS=5000 DFS_STORM=20000 cargo test --release -p dfs --test fuse -- --show-output --test-threads=1 pair:: locks:: killed:: away::

# git, sqlite, tar, rsync, cargo on a mount while chunkservers die. `DFS_TREE=/usr/share` takes that tree.
programs:
    cargo test --release -p dfs --test fuse -- --show-output --test-threads=1 programs:: git::

# PostgreSQL on a mount: load for so many seconds, its server killed, chunkservers killed, its own checks.
postgres seconds="20":
    DFS_PGBENCH_SECONDS={{seconds}} cargo test --release -p dfs --test fuse -- --show-output --test-threads=1 postgres::

# Mixed load for so many seconds: memory and descriptors stay flat. And a directory of 100,000 entries.
soak seconds="1800":
    DFS_SOAK_SECONDS={{seconds}} DFS_ENTRIES=100000 cargo test --release -p dfs --test fuse -- --show-output --test-threads=1 soak::

# What the same rigs say of a folder of a local file system.
yardstick folder filter="":
    DFS_YARDSTICK={{folder}} cargo test --release -p dfs --test fuse -- --show-output --test-threads=1 {{filter}}

# A mount against MooseFS's, both in memory. PEER starts and stops it (`PEER start|stop DIR MOUNT`), BENCH compares two
# mounts (`BENCH compare A B ..`).
bench-mount peer bench *arguments:
    cargo build --release -p dfs
    benches/compare-mounts {{peer}} {{bench}} {{arguments}}
