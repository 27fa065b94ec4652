//! Real programs on the mount while chunkservers die: sqlite, tar, rsync, diff, cargo.

use crate::faults::under_faults;
use crate::place::{Place, Shape};
use crate::tool::Tool;
use crate::{rig, scaled, seeded};
use anyhow::ensure;
use std::path::Path;

const SHAPE: Shape = Shape {
    chunk_size: "1MiB",
    mounts: 2,
    fast: true,
};

fn run(name: &'static str, needs: &[&str], script: &'static str, more: &dyn Fn(&Place) -> Vec<String>) {
    rig(name, 20, needs, || {
        let mut rng = seeded(name);
        let mut place = Place::start(SHAPE)?;
        let tool = Tool::shell(900, script)
            .arg("sh")
            .arg(place.at(0))
            .args(more(&place));
        let most = if place.is_yardstick() { 0 } else { 3 };
        let output = under_faults(&mut place, &mut rng, most, tool)?;
        ensure!(
            output.lines().any(|line| line == "as it should be"),
            "it did not get to its end: {output}"
        );
        Ok(())
    });
}

/// `$1`: the mount; `$2`: the journal's mode; `$3`: transactions; `$4`: the other mount.
const SQLITE: &str = r#"
cd "$1"
echo "PRAGMA journal_mode=$2; CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b BLOB); CREATE INDEX i ON t(a);" | sqlite3 db
n=0
while [ $n -lt $3 ]; do
    echo ".timeout 20000
BEGIN; INSERT INTO t(a, b) SELECT hex(randomblob(20)), randomblob(900) FROM generate_series(1, 20);
UPDATE t SET a = hex(randomblob(20)) WHERE id % 7 = $n % 7; DELETE FROM t WHERE id % 31 = $n % 31; COMMIT;"
    n=$((n + 1))
done >script
sqlite3 -bail db <script
test "$(sqlite3 db 'PRAGMA integrity_check')" = ok
sqlite3 db 'SELECT count(*), sum(length(b)) FROM t' >"$4/here"
if [ "$2" = delete ]; then
    # Another host, so to speak: it sees the same.
    sqlite3 "$4/db" 'PRAGMA integrity_check' | grep -qx ok
    sqlite3 "$4/db" 'SELECT count(*), sum(length(b)) FROM t' | cmp - "$1/here"
fi
echo 'as it should be'
"#;

fn sqlite(name: &'static str, mode: &'static str) {
    run(name, &["sqlite3"], SQLITE, &|place| {
        let transactions = scaled("DFS_SQLITE_TRANSACTIONS", 1_500, 100).to_string();
        vec![mode.to_owned(), transactions, text(place.at(1))]
    });
}

#[test]
fn sqlite_with_a_rollback_journal_stays_whole() {
    sqlite("programs::sqlite_with_a_rollback_journal_stays_whole", "delete");
}

#[test]
fn sqlite_with_a_write_ahead_log_stays_whole() {
    sqlite("programs::sqlite_with_a_write_ahead_log_stays_whole", "wal");
}

/// `$1`: the mount; `$2`: a tree; `$3`: a folder elsewhere.
const TREE: &str = r#"
cd "$1"
mkdir tar rsync
tar -C "$2" -cf - . | tar -C tar -xpf -
rsync -aHAX --delete "$2/" rsync/
cp -a tar copy
for tree in tar rsync copy; do
    diff -r --no-dereference "$2" $tree
    rsync -aHAXnci --delete "$2/" $tree/ >"$3/differences"
    grep -v '^\.d' "$3/differences" && exit 1
done
tar -cf archive.tar rsync
tar -df archive.tar
rm -r copy
test ! -e copy
echo 'as it should be'
"#;

#[test]
fn a_tree_that_went_through_tar_and_rsync_is_the_same() {
    let name = "programs::a_tree_that_went_through_tar_and_rsync_is_the_same";
    run(name, &["rsync", "tar", "diff"], TREE, &|place| {
        let folder = place.local("tree").unwrap();
        let source = folder.join("source");
        match std::env::var("DFS_TREE") {
            Ok(tree) => vec![tree, text(&folder)],
            Err(_) => {
                let files = scaled("DFS_TREE_FILES", 2_000, 150);
                make_tree(&source, files).unwrap();
                vec![text(&source), text(&folder)]
            }
        }
    });
}

/// Files of many sizes, links of both kinds, empty folders, odd names.
fn make_tree(root: &Path, files: u64) -> std::io::Result<()> {
    let mut rng = fastrand::Rng::with_seed(5);
    for n in 0..files {
        let folder = root.join(format!("f{}/g{}", n % 7, n % 31));
        std::fs::create_dir_all(&folder)?;
        let length = match n % 50 {
            0 => rng.usize(0..3_000_000),
            1..20 => rng.usize(0..300),
            _ => rng.usize(0..20_000),
        };
        let mut bytes = vec![0; length];
        rng.fill(&mut bytes);
        let path = folder.join(format!("datei ünd {n}"));
        std::fs::write(&path, bytes)?;
        match n % 10 {
            0 => std::os::unix::fs::symlink(format!("datei ünd {n}"), folder.join(format!("l{n}")))?,
            1 => std::fs::hard_link(&path, folder.join(format!("h{n}")))?,
            2 => std::fs::create_dir(folder.join(format!("empty {n}")))?,
            _ => {}
        }
    }
    Ok(())
}

/// `$1`: the mount.
const CARGO: &str = r#"
cd "$1"
export CARGO_NET_OFFLINE=true CARGO_TARGET_DIR="$1/target" CARGO_INCREMENTAL=1
unset RUSTFLAGS CARGO_BUILD_JOBS
cargo new --quiet --vcs none --lib part
cargo new --quiet --vcs none whole
n=0
while [ $n -lt 40 ]; do
    echo "pub mod m$n;" >>part/src/lib.rs
    echo "pub fn f(x: u64) -> u64 { (0..x).map(|y| y.wrapping_mul($n)).sum() } #[test] fn t() { assert!(f(3) < 1_000); }" >part/src/m$n.rs
    n=$((n + 1))
done
echo 'part = { path = "../part" }' >>whole/Cargo.toml
echo 'fn main() { println!("{}", part::add(40, 2) + part::m1::f(3)); }' >whole/src/main.rs
cd part && cargo test --quiet --lib && cd ..
cd whole && cargo build --quiet && cargo build --quiet --release
test "$(cargo run --quiet)" = 45
echo "// changed" >>src/main.rs
test "$(cargo run --quiet)" = 45
cargo clean --quiet
echo 'as it should be'
"#;

#[test]
fn cargo_builds_a_small_project() {
    let name = "programs::cargo_builds_a_small_project";
    run(name, &["cargo"], CARGO, &|_| Vec::new());
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of ours").to_owned()
}
