//! Failures: words, codes, exits.

use crate::{DFS, cluster, text};
use dfs_tests::process::clean;
use serde_json::{Value, json};

#[tokio::test]
async fn failures_read_like_the_unix_tools() {
    let cluster = cluster(1);
    cluster.ok(&["mkdir", "/d"]);
    cluster.ok(&["mkdir", "/d/e"]);
    for (args, message) in [
        (&["ls", "/nope"][..], "ls: /nope: No such file or directory"),
        (&["cat", "/d"], "cat: /d: Is a directory"),
        (&["stat", "/nope/x"], "stat: /nope/x: No such file or directory"),
        (&["mkdir", "/d"], "mkdir: /d: File exists"),
        (
            &["mkdir", "/no/such"],
            "mkdir: /no/such: No such file or directory",
        ),
        (&["rm", "/d"], "rm: /d: Is a directory"),
        (&["rm", "-d", "/d"], "rm: /d: Directory not empty"),
        (&["rm", "/nope"], "rm: /nope: No such file or directory"),
        (&["mv", "/nope", "/x"], "mv: /nope: No such file or directory"),
        (&["chunks", "/d"], "chunks: /d: Is a directory"),
        (
            &["put", "/no/such/file", "/x"],
            "put: /no/such/file: No such file or directory",
        ),
        (
            &["get", "/nope", "/tmp/never"],
            "get: /nope: No such file or directory",
        ),
        (
            &["put", "/etc", "/x"],
            "put: /etc: Is a directory (-r copies it with all below it)",
        ),
    ] {
        assert_eq!(cluster.fails(args), (1, message.to_owned()), "{args:?}");
    }
    cluster.ok(&["rm", "-f", "/nope"]);
}

#[tokio::test]
async fn a_failure_as_json_is_one_line_on_stderr_and_nothing_on_stdout() {
    let cluster = cluster(1);
    for args in [
        &["ls", "--json", "/nope", "/"][..],
        &["--json", "stat", "/nope"],
        &["get", "/nope", "/tmp/never", "--json"],
    ] {
        let output = cluster.run(args);
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(1), 0),
            "{args:?}"
        );
        let stderr = String::from_utf8(output.stderr).unwrap();
        let error: Value = serde_json::from_str(&stderr).unwrap();
        assert_eq!(
            (stderr.lines().count(), &error["error"]["code"]),
            (1, &json!("NotFound"))
        );
        assert_eq!(error["error"]["path"], "/nope");
    }
}

#[tokio::test]
async fn what_can_be_done_is_done_though_something_fails() {
    let cluster = cluster(1);
    cluster.ok(&["mkdir", "/a"]);
    let output = cluster.run(&["ls", "-d", "/nope", "/a"]);
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(1), &b"/a\n"[..])
    );
    let (code, _) = cluster.fails(&["mkdir", "/a", "/b"]);
    assert_eq!(code, 1);
    cluster.ok(&["test", "-d", "/b"]);
}

#[test]
fn what_is_typed_wrongly_exits_with_two() {
    for args in [
        &["lx"][..],
        &["ls", "relative"],
        &["put", "a"],
        &["test", "/a"],
        &["wait"],
        &["ls", "--nope"],
    ] {
        let output = clean(DFS.as_ref()).args(args).output().unwrap();
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(2), 0),
            "{args:?}"
        );
    }
    let output = clean(DFS.as_ref())
        .args(["ls", "--json", "relative"])
        .output()
        .unwrap();
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), &error["error"]["code"]),
        (Some(2), &json!("InvalidArgument"))
    );
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let cluster = cluster(1);
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("a");
    std::fs::write(&local, vec![7; 2_000_000]).unwrap();
    cluster.ok(&["put", text(&local), "/a"]);
    let mut child = cluster
        .command()
        .args(["cat", "/a"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
}
