//! Changes of real text, written without a document: what yrs makes of appending to a text that nobody else edits.
//!
//! A load of millions of changes is then as cheap to make as to send. A test compares them with those of yrs, byte for byte.
//!
//! | bytes (lib0 encoding) | what |
//! | --- | --- |
//! | 1, 1 | one replica, one block |
//! | varint, varint | the replica's id, the block's clock |
//! | 0x04 or 0x84 | text; with the id of the character to the left, in all but the first |
//! | 1, 4, "body" or varint, varint | the name of the text in the document, or that id: replica and clock |
//! | varint, bytes | the characters |
//! | 0 | nothing is deleted |

/// Name of the text.
const TEXT: &[u8] = b"body";
/// Characters at the end of each change that say whose it is and which one.
const IDENTITY_BYTES: usize = 16;

/// Somebody who appends to a text and never sees what others write.
#[derive(Debug, Clone)]
pub(crate) struct Author {
    replica: u64,
    tag: u16,
    clock: u64,
    number: u32,
}

impl Author {
    /// The author with this tag, which is also found in each change.
    pub(crate) fn new(tag: u16) -> Self {
        Self {
            // Ids of this size are what yrs draws: 53 bits at most.
            replica: 0x12_3456_0000 + u64::from(tag),
            tag,
            clock: 0,
            number: 0,
        }
    }

    /// Puts the next change in the place of what is in `change`: so many characters, at least 16.
    pub(crate) fn next(&mut self, characters: usize, change: &mut Vec<u8>) {
        let filler = characters.saturating_sub(IDENTITY_BYTES);
        change.clear();
        change.extend([1, 1]);
        put_varint(change, self.replica);
        put_varint(change, self.clock);
        if let Some(left) = self.clock.checked_sub(1) {
            change.push(0x84);
            put_varint(change, self.replica);
            put_varint(change, left);
        } else {
            change.extend([0x04, 1, 4]);
            change.extend(TEXT);
        }
        let length = wide(filler + IDENTITY_BYTES);
        put_varint(change, length);
        change.resize(change.len() + filler, b'x');
        change.extend(Identity {
            tag: self.tag,
            number: self.number,
        });
        change.push(0);
        self.clock += length;
        self.number += 1;
    }
}

/// Which change it is: its author's tag and its number, from 0. Travels as 16 letters and digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) tag: u16,
    pub(crate) number: u32,
}

impl Identity {
    /// What the end of a change's bytes says; `None` if it is not one of ours.
    pub(crate) fn of(change: &[u8]) -> Option<Self> {
        let (_, end) = change.split_last_chunk::<{ IDENTITY_BYTES + 1 }>()?;
        let mut digits = [0; 12];
        for (digit, character) in digits.iter_mut().zip(end) {
            *digit = char::from(*character).to_digit(16)?;
        }
        let (tag, number) = digits.split_first_chunk::<4>()?;
        let value = |digits: &[u32]| digits.iter().fold(0, |value, digit| value << 4 | digit);
        Some(Self {
            tag: u16::try_from(value(tag)).ok()?,
            number: value(number),
        })
    }
}

impl IntoIterator for Identity {
    type Item = u8;
    type IntoIter = std::array::IntoIter<u8, IDENTITY_BYTES>;

    fn into_iter(self) -> Self::IntoIter {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = u64::from(self.tag) << 32 | u64::from(self.number);
        let mut characters = *b"000000000000text";
        for (place, character) in characters.iter_mut().take(12).enumerate() {
            let digit = usize::try_from(digits >> (44 - 4 * place) & 15).unwrap_or(0);
            *character = DIGITS.get(digit).copied().unwrap_or(b'0');
        }
        characters.into_iter()
    }
}

/// An unsigned integer, seven bits to a byte, the lowest first.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while let Ok(low) = u8::try_from(value & 0x7f) {
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use sync_core::yrs::block::ClientID;
    use sync_core::yrs::{Doc, Options, Text, Transact};

    use super::*;

    #[test]
    fn changes_are_those_that_yrs_makes() {
        let mut author = Author::new(0x1234);
        let doc = Doc::with_options(Options::with_client_id(ClientID::new(author.replica)));
        let text = doc.get_or_insert_text("body");
        let mut change = Vec::new();
        for (number, characters) in [16, 16, 17, 300, 16].into_iter().enumerate() {
            author.next(characters, &mut change);
            let ours = change.clone();
            let written: String = ours[ours.len() - 1 - characters..ours.len() - 1]
                .iter()
                .map(|byte| char::from(*byte))
                .collect();
            let mut transaction = doc.transact_mut();
            text.push(&mut transaction, &written);
            assert_eq!(ours, transaction.encode_update_v1(), "change {number}");
        }
    }

    #[test]
    fn a_change_says_which_it_is() {
        let mut author = Author::new(0xbeef);
        let mut change = Vec::new();
        for number in 0..300 {
            author.next(16, &mut change);
            let identity = Identity {
                tag: 0xbeef,
                number,
            };
            assert_eq!(Identity::of(&change), Some(identity));
        }
        assert_eq!(Identity::of(b"something else, of any length"), None);
        assert_eq!(Identity::of(b"short"), None);
    }
}
