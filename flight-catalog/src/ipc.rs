//! Arrow IPC from outside, held against the bytes that came before anything of it is decoded: the decoder takes memory by what
//! a message declares of itself.

use std::collections::HashMap;
use std::io::{self, Read};

use arrow::ipc::{CompressionType, MessageHeader, RecordBatch, root_as_message};
use lz4_flex::frame::FrameDecoder;

/// Whether a message is what it says it is: its header, and the body that follows it, which may be at most `most` bytes once
/// it is unpacked.
pub fn is_sound(header: &[u8], body: &[u8], most: i64) -> bool {
    let Ok(message) = root_as_message(header) else { return false };
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()),
        _ => return true,
    };
    batch.is_some_and(|batch| fits(&batch, body, most))
}

/// The dictionaries of a stream, all of which its decoder holds until the end.
#[derive(Debug, Default)]
pub struct Dictionaries(HashMap<i64, i64>);

impl Dictionaries {
    /// Counts a sound message; whether all dictionaries together are at most `most` bytes.
    pub fn fit(&mut self, header: &[u8], body: &[u8], most: i64) -> bool {
        let Ok(message) = root_as_message(header) else { return false };
        let Some(dictionary) = message.header_as_dictionary_batch() else { return true };
        let bytes = dictionary.data().map_or(0, |batch| unpacked(&batch, body)).max(body.len() as i64);
        let held = self.0.entry(dictionary.id()).or_default();
        // Others take the place of the one before.
        *held = if dictionary.isDelta() { held.saturating_add(bytes) } else { bytes };
        self.0.values().fold(0_i64, |sum, held| sum.saturating_add(*held)) <= most
    }
}

/// What the packed buffers of a batch declare to be.
fn unpacked(batch: &RecordBatch<'_>, body: &[u8]) -> i64 {
    if batch.compression().is_none() {
        return 0;
    }
    let declared = batch.buffers().into_iter().flatten().filter_map(|buffer| {
        let bytes = body.get(usize::try_from(buffer.offset()).ok()?..)?;
        (buffer.length() > 0).then(|| bytes.first_chunk().map(|length| i64::from_le_bytes(*length)))?
    });
    declared.fold(0, |sum, declared| sum.saturating_add(declared.max(0)))
}

/// Whether a packed buffer holds no more than it declares: the decoder of LZ4 frames reads on to their end.
fn is_as_long(packed: &[u8], declared: i64) -> bool {
    let Ok(declared) = u64::try_from(declared) else { return true };
    let mut frame = FrameDecoder::new(packed).take(declared.saturating_add(1));
    io::copy(&mut frame, &mut io::sink()).is_ok_and(|bytes| bytes == declared)
}

fn fits(batch: &RecordBatch<'_>, body: &[u8], most: i64) -> bool {
    let is_packed = batch.compression().is_some();
    let is_lz4 = batch.compression().is_some_and(|compression| compression.codec() == CompressionType::LZ4_FRAME);
    let mut unpacked: i64 = 0;
    let buffers = batch.buffers().into_iter().flatten().all(|buffer| {
        let range = usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let bytes = range.and_then(|(offset, length)| body.get(offset..offset.checked_add(length)?));
        let declared = match bytes {
            None => return false,
            // The length before a packed buffer; -1 says that this one is not.
            Some(bytes) if is_packed && !bytes.is_empty() => match bytes.first_chunk() {
                Some(length) => i64::from_le_bytes(*length),
                None => return false,
            },
            Some(_) => 0,
        };
        unpacked = unpacked.saturating_add(declared.max(0));
        let packed = bytes.and_then(|bytes| bytes.get(8..)).unwrap_or_default();
        declared >= -1 && unpacked <= most && (!is_lz4 || packed.is_empty() || is_as_long(packed, declared))
    });
    let nodes = batch
        .nodes()
        .into_iter()
        .flatten()
        .all(|node| (0..=most).contains(&node.length()) && (0..=node.length()).contains(&node.null_count()));
    buffers && nodes && (0..=most).contains(&batch.length())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::FrameEncoder;

    use super::*;

    fn frame(bytes: usize) -> Vec<u8> {
        let mut frame = FrameEncoder::new(Vec::new());
        frame.write_all(&vec![0; bytes]).unwrap();
        frame.finish().unwrap()
    }

    #[test]
    fn a_frame_that_goes_on_beyond_what_it_declares_is_seen() {
        assert!(is_as_long(&frame(8_000), 8_000));
        for (packed, declared) in [(frame(8_001), 8_000), (frame(64 << 20), 8_000), (frame(7_999), 8_000), (b"LZ4".to_vec(), 5)] {
            assert!(!is_as_long(&packed, declared), "{declared}");
        }
    }
}
