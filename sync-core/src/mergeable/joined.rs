//! One content out of two that have no node and no field in common but structs around them: what a type knows of a
//! place, and what it does not.

use super::Kind;
use super::cursor::{Cursor, put_len, put_varint};

/// Appends both, sorted as a single writer would have.
pub(super) fn contents(known: &[u8], rest: &[u8], out: &mut Vec<u8>) {
    let number = |kind: Kind| u64::from(kind.number());
    join(known, rest, out, &|kind, known, rest, out| {
        if kind == number(Kind::Struct) {
            join(known, rest, out, &|_, known, rest, out| {
                contents(known, rest, out);
            });
        } else {
            // Both sides never write one node; were it so, the types' own is the one that counts.
            out.extend_from_slice(known);
        }
    });
}

/// Appends what both sides have under one number.
type Both<'a> = &'a dyn Fn(u64, &[u8], &[u8], &mut Vec<u8>);

/// Joins two lists of items that each are a number, a length and that many bytes, in ascending order of the numbers.
fn join(known: &[u8], rest: &[u8], out: &mut Vec<u8>, both: Both<'_>) {
    let (mut known, mut rest) = (Items(Cursor::new(known)), Items(Cursor::new(rest)));
    let (mut a, mut b) = (known.next(), rest.next());
    loop {
        let (number, body) = match (a, b) {
            (Some((left, ours)), Some((right, theirs))) if left == right => {
                let mut body = Vec::new();
                both(left, ours, theirs, &mut body);
                (a, b) = (known.next(), rest.next());
                (left, body)
            }
            (Some((left, ours)), other) if other.is_none_or(|(right, _)| left < right) => {
                a = known.next();
                (left, ours.to_vec())
            }
            (_, Some((right, theirs))) => {
                b = rest.next();
                (right, theirs.to_vec())
            }
            _ => return,
        };
        put_varint(out, number);
        put_len(out, body.len());
        out.extend_from_slice(&body);
    }
}

/// The items of a list that a [`DeltaWriter`](super::DeltaWriter) wrote.
struct Items<'a>(Cursor<'a>);

impl<'a> Iterator for Items<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // A kind is a byte below 128, which is what it is as a varint too.
        let number = self.0.varint("a number").ok()?;
        let length = self.0.varint("a length").ok()?;
        Some((number, self.0.take(length, "an item").ok()?))
    }
}
