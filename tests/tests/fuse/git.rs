//! git on the mount: a repository of many objects made, cloned and checked while chunkservers die.

use crate::faults::under_faults;
use crate::place::{Place, Shape};
use crate::tool::Tool;
use crate::{rig, scaled, seeded};
use anyhow::ensure;

/// `$1`: the mount; `$2`: how many files, each an object of its own.
const SCRIPT: &str = r#"
export HOME=$1 GIT_AUTHOR_NAME=rig GIT_AUTHOR_EMAIL=rig@localhost GIT_COMMITTER_NAME=rig GIT_COMMITTER_EMAIL=rig@localhost
cd "$1"
git init -q work
cd work
git config gc.auto 0
each=$(($2 / 10))
for commit in 1 2 3 4 5 6 7 8 9 10; do
    mkdir "folder-$commit"
    n=0
    while [ $n -lt $each ]; do
        echo "commit $commit file $n" >"folder-$commit/file-$n"
        n=$((n + 1))
    done
    git add .
    git commit -q -m "commit $commit"
done
git fsck --full --strict
cd ..
git clone -q --no-hardlinks work clone
git -C clone fsck --full --strict
git -C clone repack -q -a -d
git -C clone fsck --full --strict
git -C clone status --porcelain | wc -l | grep -qx 0
diff -r --exclude=.git work clone
git -C work count-objects -v
"#;

#[test]
fn git_makes_clones_and_checks_a_repository() {
    let name = "git::git_makes_clones_and_checks_a_repository";
    rig(name, 30, &["git"], || {
        let objects = scaled("DFS_GIT_OBJECTS", 10_000, 300);
        let mut rng = seeded("git");
        let mut place = Place::start(Shape {
            chunk_size: "1MiB",
            mounts: 1,
            fast: true,
        })?;
        let tool = Tool::shell(1_500, SCRIPT)
            .arg("sh")
            .arg(place.at(0))
            .arg(objects.to_string());
        let most = if place.is_yardstick() { 0 } else { 3 };
        let output = under_faults(&mut place, &mut rng, most, tool)?;
        let count = output
            .lines()
            .find_map(|line| line.strip_prefix("count: "))
            .and_then(|count| count.parse::<u64>().ok());
        ensure!(count >= Some(objects), "{count:?} objects: {output}");
        Ok(())
    });
}
