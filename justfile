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

# `put` and `get` over the death and the hang of a chunkserver.
hang:
    cargo test --release -p dfs --test crash -- --show-output --test-threads=1 hang::

# Breaks the product on purpose, once for each file in tests/mutants: the rig its first line names must notice.
prove-rigs:
    tests/mutants/prove
