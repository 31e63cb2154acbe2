//! Deletion vectors: the places of deleted rows as one blob, which Iceberg keeps in Puffin files.

use nexus_flight_catalog::{Error, Result};
use roaring::{RoaringBitmap, RoaringTreemap};

/// What a vector begins with, after its length.
const MAGIC: [u8; 4] = [0xD1, 0xD3, 0x39, 0x64];

/// The fewest bytes that a bitmap takes: its key, what it is, and that it has no containers.
const LEAST: usize = 12;

/// The places of deleted rows in a blob of type `deletion-vector-v1`: the length of what follows without the sum (big-endian),
/// the magic number, the number of 32-bit bitmaps (little-endian), each after its key in the portable form of Roaring, and the
/// CRC-32 of all between length and sum (big-endian). Errors: `Data`, without a place, for whatever differs from that.
pub(crate) fn deletion_vector(bytes: &[u8]) -> Result<RoaringTreemap> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Err(unsound("it ends within its length")) };
    let Some((body, sum)) = rest.split_last_chunk::<4>() else { return Err(unsound("it ends before its checksum")) };
    let length = u32::from_be_bytes(*length);
    if u64::from(length) != body.len() as u64 {
        return Err(unsound(&format!("it says that it has {length} bytes, and it has {}", body.len())));
    }
    if crc32fast::hash(body) != u32::from_be_bytes(*sum) {
        return Err(unsound("its checksum is another"));
    }
    match body.strip_prefix(&MAGIC) {
        Some(bitmaps) => treemap(bitmaps),
        None => Err(unsound("it does not begin with the magic number of one")),
    }
}

/// A set of 64-bit numbers in the portable form. The library would insert whatever keys there are, in any order, and leave what
/// follows unread; of each 32-bit bitmap it checks everything, and allocates little before it has seen the bytes.
fn treemap(bytes: &[u8]) -> Result<RoaringTreemap> {
    let Some((count, mut rest)) = bytes.split_first_chunk::<8>() else { return Err(unsound("it ends within its count")) };
    let count = u64::from_le_bytes(*count);
    if count > (rest.len() / LEAST) as u64 {
        return Err(unsound(&format!("it has no room for {count} bitmaps")));
    }
    let mut bitmaps: Vec<(u32, RoaringBitmap)> = Vec::new();
    let mut last: Option<u32> = None;
    for _ in 0..count {
        let Some((key, after)) = rest.split_first_chunk::<4>() else { return Err(unsound("it ends within a key")) };
        rest = after;
        let key = u32::from_le_bytes(*key);
        if last.is_some_and(|last| last >= key) {
            return Err(unsound("its keys do not ascend"));
        }
        if key > i32::MAX as u32 {
            return Err(unsound("a place in it is less than 0"));
        }
        last = Some(key);
        let bitmap = RoaringBitmap::deserialize_from(&mut rest).map_err(|cause| unsound(&cause.to_string()))?;
        // Writers in Java put one for each key up to the last.
        if !bitmap.is_empty() {
            bitmaps.push((key, bitmap));
        }
    }
    if !rest.is_empty() {
        return Err(unsound("something follows its last bitmap"));
    }
    Ok(RoaringTreemap::from_bitmaps(bitmaps))
}

fn unsound(why: &str) -> Error {
    let error = Error::data(format!("the deletion vector is not sound: {why}"));
    error.with_hint("restore the file, or write the table's deletes again")
}

#[cfg(test)]
pub(super) mod tests {
    use nexus_flight_catalog::Kind;

    use super::*;

    /// The blob around what would be its magic number and its bitmaps.
    fn sealed(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&length[..], body, &crc32fast::hash(body).to_be_bytes()[..]].concat()
    }

    fn body(set: &RoaringTreemap) -> Vec<u8> {
        let mut body = MAGIC.to_vec();
        set.serialize_into(&mut body).unwrap();
        body
    }

    /// The blob of a set.
    pub(in crate::lake) fn blob(set: &RoaringTreemap) -> Vec<u8> {
        sealed(&body(set))
    }

    /// Arrays, runs, and more than 32 bits, in few bytes.
    fn mixed() -> RoaringTreemap {
        let mut set = RoaringTreemap::from([1_u64, 3, 70_000, 1 << 33, (1 << 33) + 5]);
        set.insert_range(200_000..200_900);
        set.optimize();
        set
    }

    fn message(bytes: &[u8]) -> String {
        let error = deletion_vector(bytes).unwrap_err();
        assert_eq!(error.kind(), Kind::Data);
        error.message().to_owned()
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let written = [
            0x00, 0x00, 0x00, 0x24, 0xd1, 0xd3, 0x39, 0x64, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x00, 0x3a, 0x30, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x10, 0x00, 0x00, 0x00, 0x01, 0x00,
            0x03, 0x00, 0x68, 0x34, 0x97, 0xa9,
        ];
        assert_eq!(deletion_vector(&written).unwrap(), RoaringTreemap::from([1_u64, 3]));
        assert_eq!(blob(&RoaringTreemap::from([1_u64, 3])), written);
    }

    #[test]
    fn what_was_written_is_read() {
        let scattered: RoaringTreemap = (0..300_000_u64).step_by(7).chain([(1 << 40) + 1]).collect();
        for set in [RoaringTreemap::new(), (0..70_000_u64).collect(), scattered, mixed()] {
            assert_eq!(deletion_vector(&blob(&set)).unwrap(), set);
        }
    }

    #[test]
    fn a_byte_that_is_missing_or_another_is_noticed() {
        let whole = blob(&mixed());
        for length in 0..whole.len() {
            deletion_vector(&whole[..length]).unwrap_err();
        }
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                deletion_vector(&bytes).unwrap_err();
            }
        }
        deletion_vector(&[&whole[..], &[0]].concat()).unwrap_err();
    }

    #[test]
    fn nothing_panics_where_the_checksum_fits() {
        let whole = body(&mixed());
        for length in 0..whole.len() {
            deletion_vector(&sealed(&whole[..length])).unwrap_err();
        }
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                // Another set, perhaps, which is what the bytes say then.
                if let Err(error) = deletion_vector(&sealed(&bytes)) {
                    assert_eq!(error.kind(), Kind::Data);
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_too_large_allocate_nothing() {
        let with = |count: u64, rest: &[u8]| sealed(&[&MAGIC[..], &count.to_le_bytes()[..], rest].concat());
        let empty = |key: u32| [&key.to_le_bytes()[..], &12346_u32.to_le_bytes()[..], &0_u32.to_le_bytes()[..]].concat();
        let of = |keys: &[u32]| with(keys.len() as u64, &keys.iter().flat_map(|key| empty(*key)).collect::<Vec<u8>>());
        assert_eq!(deletion_vector(&of(&[0, 1])).unwrap(), RoaringTreemap::new());
        insta::assert_snapshot!(
            message(&with(u64::MAX, &[])),
            @"the deletion vector is not sound: it has no room for 18446744073709551615 bitmaps"
        );
        insta::assert_snapshot!(message(&of(&[1, 0])), @"the deletion vector is not sound: its keys do not ascend");
        insta::assert_snapshot!(message(&of(&[1, 1])), @"the deletion vector is not sound: its keys do not ascend");
        insta::assert_snapshot!(message(&of(&[1 << 31])), @"the deletion vector is not sound: a place in it is less than 0");
        insta::assert_snapshot!(
            message(&with(1, &[empty(0), vec![0]].concat())),
            @"the deletion vector is not sound: something follows its last bitmap"
        );
        let containers = [&0_u32.to_le_bytes()[..], &12346_u32.to_le_bytes()[..], &u32::MAX.to_le_bytes()[..]].concat();
        insta::assert_snapshot!(
            message(&with(1, &containers)),
            @"the deletion vector is not sound: size is greater than supported"
        );
    }
}
