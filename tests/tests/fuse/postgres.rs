//! PostgreSQL with its data on the mount: load, a kill of the server, recovery, and its own checks. A recipe.

use crate::faults::under_faults;
use crate::place::{Place, Shape};
use crate::tool::Tool;
use crate::{rig, scaled, seeded};

/// `$1`: the mount; `$2`: seconds of load; `$3`: a folder for the socket. The server refuses to run as root.
const SCRIPT: &str = r#"
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
PATH=$bin:$PATH
chmod 755 "$(dirname "$1")" "$1"
chmod 777 "$3"
mkdir "$1/data"
chown postgres "$1/data"
as() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
as initdb -k -D "$1/data" >/dev/null
begin() { as pg_ctl -w -t 120 -D "$1/data" -l "$3/log" -o "-k $3 -c listen_addresses= -c full_page_writes=off" start >/dev/null; }
begin "$@"
as createdb -h "$3" rig
as pgbench -h "$3" -q -i -s 5 rig 2>/dev/null
for round in 1 2 3; do
    as pgbench -h "$3" -c 4 -j 2 -T "$2" rig >"$3/bench" 2>&1 &
    bench=$!
    if [ $round -lt 3 ]; then
        pause=$(($2 / 2 + 1))
        read -r server <"$1/data/postmaster.pid"
        sleep $pause
        kill -s KILL "$server"
        wait $bench || true
        # The server's children see that it is gone, and end.
        until begin "$@"; do :; done
    else
        wait $bench
        grep tps "$3/bench"
    fi
done
test "$(as psql -h "$3" -At -c 'select sum(abalance) from pgbench_accounts' rig)" = \
     "$(as psql -h "$3" -At -c 'select sum(delta) from pgbench_history' rig)"
as psql -h "$3" -q -c 'create extension amcheck' rig
as pg_amcheck -h "$3" --heapallindexed rig
as pg_ctl -w -D "$1/data" stop >/dev/null
as pg_checksums --check -D "$1/data"
echo 'as it should be'
"#;

#[test]
fn postgres_recovers_on_the_mount() {
    let name = "postgres::postgres_recovers_on_the_mount";
    let seconds = scaled("DFS_PGBENCH_SECONDS", 0, 0);
    if seconds == 0 {
        println!("postgres: by its recipe only");
        return;
    }
    rig(name, 30, &["pg_ctlcluster", "setpriv"], || {
        let mut rng = seeded("postgres");
        let mut place = Place::start(Shape {
            chunk_size: "1MiB",
            mounts: 1,
            fast: true,
        })?;
        let socket = place.local("socket")?;
        let tool = Tool::shell(1_500, SCRIPT)
            .arg("sh")
            .arg(place.at(0))
            .arg(seconds.to_string())
            .arg(socket);
        let most = if place.is_yardstick() { 0 } else { 3 };
        let output = under_faults(&mut place, &mut rng, most, tool)?;
        println!("{output}");
        anyhow::ensure!(output.contains("as it should be"));
        Ok(())
    });
}
