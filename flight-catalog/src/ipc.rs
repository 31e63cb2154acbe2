//! Arrow IPC from outside, held against the bytes that came before anything of it is decoded: the decoder takes memory by what
//! a message declares of itself.

use arrow::ipc::{MessageHeader, RecordBatch, root_as_message};

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

fn fits(batch: &RecordBatch<'_>, body: &[u8], most: i64) -> bool {
    let is_packed = batch.compression().is_some();
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
        declared >= -1 && unpacked <= most
    });
    let nodes = batch
        .nodes()
        .into_iter()
        .flatten()
        .all(|node| (0..=most).contains(&node.length()) && (0..=node.length()).contains(&node.null_count()));
    buffers && nodes && (0..=most).contains(&batch.length())
}
