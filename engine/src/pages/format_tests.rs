use super::*;
use steadfast_core::feature_level::FeatureLevel;
use steadfast_core::ids::{Ballot, BootId, Digest, Identity, Incarnation, Stamp};

const ME: NodeId = NodeId(3);

pub(crate) fn page(sequence: u64) -> Page {
    let ballot = Ballot { term: 7, node: 3 };
    Page {
        level: FeatureLevel::OLDEST,
        writer: Identity { node: ME, boot: BootId(u128::MAX), incarnation: Incarnation(2) },
        sequence,
        promised: ballot,
        accepted: Stamp { ballot, version: sequence },
        slot: 1,
        digest: Digest([0xab; 32]),
        armed: true,
        arming: Stamp::default(),
        disarmed: None,
        idle: false,
        none_left: Some(Stamp { ballot, version: 9 }),
        last_words: None,
        view_size: 3,
        span: Some(steadfast_core::time::Millis(6_000)),
        verification: Some(true),
    }
}

fn file_with(sequences: &[u64]) -> Vec<u8> {
    let mut file = vec![0; 2 * BLOCK];
    for sequence in sequences {
        let at = usize::try_from(page_offset(*sequence)).unwrap();
        encode_page(&page(*sequence), ME, &mut file[at..at + BLOCK]).unwrap();
    }
    file
}

#[test]
fn a_page_survives_the_round_trip() {
    assert_eq!(decode_pages(&file_with(&[]), ME), Ok(None));
    assert_eq!(decode_pages(&file_with(&[1]), ME), Ok(Some(page(1))));
    assert_eq!(decode_pages(&file_with(&[1, 2]), ME), Ok(Some(page(2))));
    assert_eq!(decode_pages(&file_with(&[1, 2, 3]), ME), Ok(Some(page(3))));
}

#[test]
fn every_corrupted_byte_is_seen_and_the_older_block_counts() {
    let good = file_with(&[4, 5]);
    let newest = usize::try_from(page_offset(5)).unwrap();
    for at in 0..BLOCK {
        let mut file = good.clone();
        file[newest + at] ^= 0x41;
        assert_eq!(decode_pages(&file, ME), Ok(Some(page(4))), "byte {at}");
    }
}

#[test]
fn every_truncated_write_leaves_the_older_block() {
    let (old, new) = (file_with(&[3, 4]), file_with(&[4, 5]));
    let newest = usize::try_from(page_offset(5)).unwrap();
    for written in 0..=BLOCK {
        let mut file = old.clone();
        file[newest..newest + written].copy_from_slice(&new[newest..newest + written]);
        let found = decode_pages(&file, ME).unwrap().unwrap();
        // The tail beyond the payload is zero in both, so a long enough write is whole.
        assert!(found == page(4) || found == page(5), "{written} bytes: {found:?}");
    }
}

#[test]
fn a_torn_first_write_is_nothing_and_two_torn_blocks_are_an_error() {
    let mut file = file_with(&[1]);
    file[BLOCK + 50] ^= 1;
    assert_eq!(decode_pages(&file, ME), Ok(None));
    file[BLOCK..BLOCK + HEADER].fill(0);
    assert_eq!(decode_pages(&file, ME), Ok(None));
    let mut file = file_with(&[1, 2]);
    file[50] ^= 1;
    file[BLOCK + 50] ^= 1;
    assert!(matches!(decode_pages(&file, ME), Err(Damage::Checksum { .. })));
}

#[test]
fn a_copied_page_and_a_newer_format_are_refused_even_beside_a_good_block() {
    assert!(matches!(decode_pages(&file_with(&[1]), NodeId(4)), Err(Damage::Node { .. })));
    let mut file = file_with(&[1, 2]);
    file[8] = 9;
    let crc = checksum(&file[..BLOCK]);
    file[CRC_FIELD].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(decode_pages(&file, ME), Err(Damage::Format(9)));
}

#[test]
fn bodies_of_every_size_survive_and_torn_ones_are_seen() {
    for length in [0, 1, BLOCK - HEADER, BLOCK - HEADER + 1, 3 * BLOCK] {
        let body: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let mut blocks = vec![0; body_size(length)];
        encode_body(&body, ME, 1, &mut blocks).unwrap();
        assert_eq!(decode_body(&blocks, ME, 1), Ok(body));
        assert!(decode_body(&blocks, ME, 0).is_err());
        assert!(decode_body(&blocks, NodeId(9), 1).is_err());
        for at in (0..HEADER + length).step_by(97) {
            let mut torn = blocks.clone();
            torn[at] ^= 0x10;
            assert!(decode_body(&torn, ME, 1).is_err(), "byte {at} of {length}");
        }
    }
    assert_eq!(decode_body(&[0; BLOCK], ME, 0), Err(Damage::Empty));
}
