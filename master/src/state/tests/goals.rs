//! Goals: of a file, of a directory for what is made in it, of the chunks that are there already.

use super::*;
use crate::command::SetAttributes;

fn set(inode: u64, goal: u32) -> SetAttributes {
    SetAttributes {
        inode,
        goal: Some(goal),
        ..SetAttributes::default()
    }
}

#[test]
fn chunks_follow_the_goal_of_their_file_at_once() {
    let mut world = World::new();
    let file = world.makes(1, "f", Kind::File);
    let (first, second) = (world.allocates(file, 0), world.allocates(file, CHUNK_BYTES));
    assert_eq!(world.chunk(first).goal, 2, "the cluster's");
    world.does(set(file, 3));
    assert_eq!((world.chunk(first).goal, world.chunk(second).goal), (3, 3));
    let all = state::chunks_after(&world.view(), ChunkHandle(0), 10);
    assert_eq!(all.iter().map(|(_, c)| c.goal).collect::<Vec<_>>(), [3, 3]);
    let found = state::locate(&world.view(), None, InodeId(file), 0, u64::MAX).unwrap();
    assert!(found.extents.iter().all(|e| e.chunk.goal == 3));
    world.does(set(file, 0));
    assert_eq!(world.chunk(first).goal, 2, "0 is the cluster's again");
}

#[test]
fn what_is_made_in_a_directory_has_its_goal_and_what_is_there_keeps_its_own() {
    let mut world = World::new();
    let directory = world.makes(1, "d", Kind::Directory);
    let before = world.makes(directory, "before", Kind::File);
    world.does(set(directory, 3));
    let below = world.makes(directory, "below", Kind::Directory);
    let file = world.makes(below, "f", Kind::File);
    let (old, new) = (world.allocates(before, 0), world.allocates(file, 0));
    assert_eq!((world.chunk(old).goal, world.chunk(new).goal), (2, 3));
}

#[test]
fn only_the_owner_sets_a_goal_and_only_one_that_can_be() {
    let mut world = World::new();
    let file = world.makes(1, "f", Kind::File);
    assert!(world.tries_as(&user(10, 10, &[]), set(file, 1)).is_err());
    assert!(world.tries(set(file, 9)).is_err());
}
