use super::*;
use proptest::prelude::*;

fn golden() -> Command {
    Command::from_client(
        5,
        RequestId {
            client: 1,
            sequence: 2,
            lowest_unanswered: 1,
        },
        Caller {
            uid: 10,
            gid: 20,
            groups: vec![30],
        },
        Unlink {
            parent: 1,
            name: b"a".to_vec(),
            ..Unlink::default()
        },
    )
}

#[test]
fn a_command_has_golden_bytes() {
    let bytes = [
        1, // format
        0x08, 5, // time
        0x12, 6, 0x08, 1, 0x10, 2, 0x18, 1, // request
        0x1a, 7, 0x08, 10, 0x10, 20, 0x1a, 1, 30, // caller
        0xb2, 1, 5, 0x08, 1, 0x12, 1, b'a', // unlink is field 22
    ];
    assert_eq!(golden().to_bytes(), bytes);
    assert_eq!(Command::from_bytes(&bytes).unwrap(), golden());
    assert_eq!(golden().change.unwrap().name(), "Unlink");
}

#[test]
fn a_field_of_a_newer_program_is_passed_over() {
    let mut bytes = golden().to_bytes();
    bytes.extend([0xf8, 0x3f, 9]); // field 1023
    assert_eq!(Command::from_bytes(&bytes).unwrap(), golden());
}

#[test]
fn what_cannot_be_read_is_an_error() {
    for bytes in [
        &[][..],
        &[2, 0x08, 5],       // a newer format
        &[1, 0x08, 5],       // no change
        &[1, 0xf2, 0x06, 0], // a change of a newer program (field 110)
        &[1, 0x08],          // cut
    ] {
        assert_eq!(Command::from_bytes(bytes).unwrap_err().code, Code::Internal);
        assert_eq!(outcome_from_bytes(bytes).unwrap_err().code, Code::Internal);
    }
}

#[test]
fn results_come_back_as_they_were_kept() {
    use dfs_proto::{ChunkHandle, NodeId, Version};
    let refusal = Error::new(Code::Busy, "later")
        .on_chunk(ChunkHandle(7), Version(3))
        .on_node(NodeId(2));
    let made = Made {
        attributes: Attributes {
            inode: 9,
            ..Attributes::default()
        },
        created: true,
        slot: Some(Slot {
            inode: 9,
            offset: 0,
            span: 65_536,
            chunk: 4,
        }),
        touched: Vec::new(),
    };
    for outcome in [
        Ok(Reply::Done(Done::default())),
        Ok(Reply::Made(made)),
        Err(refusal),
        Err(Code::NotFound.into()),
    ] {
        assert_eq!(outcome_from_bytes(&outcome_to_bytes(&outcome)).unwrap(), outcome);
    }
    assert_eq!(outcome_to_bytes(&Ok(Reply::Done(Done::default()))), [1, 0x0a, 0]);
}

proptest! {
    #[test]
    fn garbage_is_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Command::from_bytes(&bytes);
        let _ = outcome_from_bytes(&bytes);
    }

    #[test]
    fn a_flipped_command_is_another_one_or_an_error(at in 0_usize..30, bit in 0_u8..8) {
        let mut bytes = golden().to_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(read) = Command::from_bytes(&bytes) {
            prop_assert_eq!(Command::from_bytes(&read.to_bytes()).unwrap(), read);
        }
    }
}
