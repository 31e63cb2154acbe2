//! Arrow IPC from outside, held against the bytes that came before anything of it is decoded: the decoder takes memory by what
//! a message declares of itself.

use std::collections::HashMap;
use std::io::{self, Read};

use arrow::ipc::{CompressionType, MessageHeader, RecordBatch, root_as_message};
use lz4_flex::frame::FrameDecoder;

/// A message that is what it says it is.
#[derive(Debug)]
pub struct Sound {
    /// The bytes of its body, packed or unpacked, whichever are more.
    bytes: i64,
    /// The dictionary that it holds, and whether it adds to the one that was there.
    dictionary: Option<(i64, bool)>,
}

/// Looks at a message: its header, and the body that follows it, which may be at most `most` bytes once it is unpacked. Nothing where
/// it is not what it says it is.
pub fn sound(header: &[u8], body: &[u8], most: i64) -> Option<Sound> {
    let message = root_as_message(header).ok()?;
    let (batch, dictionary) = match message.header_type() {
        MessageHeader::RecordBatch => (message.header_as_record_batch()?, None),
        MessageHeader::DictionaryBatch => {
            let dictionary = message.header_as_dictionary_batch()?;
            (dictionary.data()?, Some((dictionary.id(), dictionary.isDelta())))
        }
        _ => return Some(Sound { bytes: 0, dictionary: None }),
    };
    let unpacked = unpacked(&batch, body, most)?;
    Some(Sound { bytes: unpacked.max(body.len() as i64), dictionary })
}

/// The dictionaries of a stream, all of which its decoder holds until the end.
#[derive(Debug, Default)]
pub struct Dictionaries(HashMap<i64, i64>);

impl Dictionaries {
    /// Counts a message; whether all dictionaries together are at most `most` bytes.
    pub fn fit(&mut self, message: &Sound, most: i64) -> bool {
        let Some((id, adds)) = message.dictionary else { return true };
        let held = self.0.entry(id).or_default();
        // Others take the place of the one before.
        *held = if adds { held.saturating_add(message.bytes) } else { message.bytes };
        self.bytes() <= most
    }

    /// What they and a message take, which was counted with them where it is one of them.
    pub fn with(&self, message: &Sound) -> i64 {
        self.bytes().saturating_add(if message.dictionary.is_some() { 0 } else { message.bytes })
    }

    fn bytes(&self) -> i64 {
        self.0.values().fold(0_i64, |sum, held| sum.saturating_add(*held))
    }
}

/// Whether a packed buffer holds no more than it declares: the decoder of LZ4 frames reads on to their end.
fn is_as_long(packed: &[u8], declared: i64) -> bool {
    let Ok(declared) = u64::try_from(declared) else { return true };
    let mut frame = FrameDecoder::new(packed).take(declared.saturating_add(1));
    io::copy(&mut frame, &mut io::sink()).is_ok_and(|bytes| bytes == declared)
}

/// The bytes that the packed buffers of a batch declare to be; nothing where it does not fit its body.
fn unpacked(batch: &RecordBatch<'_>, body: &[u8], most: i64) -> Option<i64> {
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
    (buffers && nodes && (0..=most).contains(&batch.length())).then_some(unpacked)
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
