//! Files with exported documents: damaged ones are refused, whole ones are written again as they are.

use sync_server::registry::{Export, ExportError};
use twox_hash::XxHash3_64;

use crate::input::Input;
use crate::memory::bounded;

/// Any bytes as a file; or sections that are what they say they are, and hold anything.
pub fn export_file(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let file = match input.below(2) {
        0 => input.rest().to_vec(),
        _ => sections(&mut input),
    };
    let bytes_max = 1024 * file.len() + 64 * 1024;
    let read = bounded(bytes_max, "reading a file", || Export::read_from(&file[..]));
    match read {
        Ok(export) => {
            export.verify().unwrap();
            let mut written = Vec::new();
            export.write_to(&mut written).unwrap();
            assert_eq!(Export::read_from(&written[..]).unwrap(), export);
            // Nothing can be left out of it.
            let cut = written.len() / 2;
            assert!(Export::read_from(&written[..cut]).is_err());
        }
        Err(ExportError::Io(error)) => panic!("{error}"),
        Err(other) => drop(other.to_string()),
    }
}

/// A file whose sums are right.
fn sections(input: &mut Input<'_>) -> Vec<u8> {
    let mut file = b"SYNCDOC\n\x02\0\0\0".to_vec();
    let mut position = 0_u64;
    while !input.is_empty() {
        let tag = input.below(8);
        let mut bytes = input.piece().to_vec();
        if tag == 4 {
            // A row has a sum of its own, seeded with its first sequence; three numbers are before it.
            let seq = bytes
                .first_chunk()
                .map_or(0, |seq| u64::from_le_bytes(*seq));
            let row = bytes.get(24..).unwrap_or_default();
            bytes.extend_from_slice(&sum(seq, row));
        }
        file.push(tag);
        file.extend_from_slice(&u64::try_from(bytes.len()).unwrap().to_le_bytes());
        file.extend_from_slice(&bytes);
        file.extend_from_slice(&sum((position << 8) | u64::from(tag), &bytes));
        position += 1;
    }
    file
}

fn sum(seed: u64, bytes: &[u8]) -> [u8; 8] {
    XxHash3_64::oneshot_with_seed(seed, bytes).to_le_bytes()
}
