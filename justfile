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

# Power cuts on loop-mounted file systems, as many as asked for. Root only.
cuts count="100":
    DFS_CUTS={{count}} cargo test --release -p dfs --test crash -- --show-output --test-threads=1 power

# SIGKILL in a loop under load, as many as asked for.
kills count="100":
    DFS_KILLS={{count}} cargo test --release -p dfs --test crash -- --show-output --test-threads=1 kill
