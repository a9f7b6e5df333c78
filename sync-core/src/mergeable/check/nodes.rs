//! Walking the content of a change: the body of every kind of node.

use super::{Refers, message_pack, whole_value};
use crate::engine::EngineError;
use crate::mergeable::Kind;
use crate::mergeable::cursor::Cursor;
use crate::mergeable::sequence::RUN_MAX;

/// Deepest nesting of nodes; a protocol constant. Chosen far above what types nest, and far below what a stack holds.
pub(super) const NODES_MAX: u32 = 32;

/// Bounds that hold for a whole change.
#[derive(Debug, Clone, Copy)]
struct Rules {
    refers: Refers,
    depth_max: u32,
}

/// Checks the nodes of one place, up to the cursor's end.
pub(super) fn content(
    cursor: &mut Cursor<'_>,
    refers: Refers,
    depth_max: u32,
) -> Result<(), EngineError> {
    Rules { refers, depth_max }.content(cursor, 0)
}

impl Rules {
    fn content(self, cursor: &mut Cursor<'_>, depth: u32) -> Result<(), EngineError> {
        let mut before = None;
        while !cursor.is_at_end() {
            let start = *cursor;
            let kind = Kind::from_number(cursor.byte("a node's kind")?)
                .ok_or_else(|| start.malformed("a node's kind"))?;
            if before.replace(kind).is_some_and(|before| before >= kind) {
                return Err(start.malformed("nodes in ascending order"));
            }
            if depth >= NODES_MAX.min(self.depth_max) {
                return Err(EngineError::LimitExceeded {
                    what: "nesting of nodes",
                    value: u64::from(depth) + 1,
                    max: u64::from(NODES_MAX.min(self.depth_max)),
                });
            }
            let length = cursor.varint("a node's length")?;
            let mut body = cursor.part(length, "a node")?;
            let body = &mut body;
            match kind {
                Kind::LwwMap => self.entries(body)?,
                Kind::Register => self.register(body)?,
                Kind::Counter => self.counter(body)?,
                Kind::OrSet => self.keyed(body, |rules, body| rules.tags(body))?,
                Kind::OrMap => self.keyed(body, |rules, body| {
                    body.varint("a generation")?;
                    rules.tags(body)?;
                    rules.sized(body, depth)
                })?,
                Kind::Dictionary => self.keyed(body, |rules, body| {
                    body.varint("a causal length")?;
                    rules.stamp(body)?;
                    rules.sized(body, depth)
                })?,
                Kind::Sequence => self.sequence(body)?,
                Kind::Struct => self.fields(body, depth)?,
            }
            if !body.is_at_end() {
                return Err(body.malformed("the end of a node"));
            }
        }
        Ok(())
    }

    /// The content of a place inside a node, with its length.
    fn sized(self, body: &mut Cursor<'_>, depth: u32) -> Result<(), EngineError> {
        let length = body.varint("a content's length")?;
        let mut content = body.part(length, "a content")?;
        self.content(&mut content, depth + 1)
    }

    fn fields(self, body: &mut Cursor<'_>, depth: u32) -> Result<(), EngineError> {
        let mut before = None;
        while !body.is_at_end() {
            let start = *body;
            let tag = body.varint("a field's tag")?;
            if u32::try_from(tag).is_err() {
                return Err(start.malformed("a field's tag"));
            }
            if before.replace(tag).is_some_and(|before| before >= tag) {
                return Err(start.malformed("fields in ascending order"));
            }
            self.sized(body, depth)?;
        }
        Ok(())
    }

    fn entries(self, body: &mut Cursor<'_>) -> Result<(), EngineError> {
        let mut before: Option<&[u8]> = None;
        while !body.is_at_end() {
            self.stamp(body)?;
            self.key(body, &mut before)?;
            self.optional_value(body)?;
        }
        Ok(())
    }

    fn register(self, body: &mut Cursor<'_>) -> Result<(), EngineError> {
        self.stamp(body)?;
        self.optional_value(body)
    }

    fn counter(self, body: &mut Cursor<'_>) -> Result<(), EngineError> {
        const WHAT: &str = "a counter's sums";
        let start = *body;
        match body.varint(WHAT)? {
            0 => {}
            1 => {
                body.varint(WHAT)?;
                body.varint(WHAT)?;
            }
            _ => return Err(start.malformed(WHAT)),
        }
        while !body.is_at_end() {
            let start = *body;
            let form = body.varint("a counter's cell")?;
            self.stamp(body)?;
            match form {
                1 => drop(body.varint("a commit number")?),
                2 => {}
                _ => return Err(start.malformed("a counter's cell")),
            }
            body.varint(WHAT)?;
            body.varint(WHAT)?;
        }
        Ok(())
    }

    /// Entries by key, each with what `rest` reads.
    fn keyed(
        self,
        body: &mut Cursor<'_>,
        rest: impl Fn(Self, &mut Cursor<'_>) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut before = None;
        while !body.is_at_end() {
            self.key(body, &mut before)?;
            rest(self, body)?;
        }
        Ok(())
    }

    fn tags(self, body: &mut Cursor<'_>) -> Result<(), EngineError> {
        for _ in 0..body.varint("the number of tags")? {
            self.stamp(body)?;
        }
        for _ in 0..body.varint("the number of tags")? {
            self.replica(body)?;
            body.varint("a commit number")?;
            self.stamp(body)?;
        }
        Ok(())
    }

    fn sequence(self, body: &mut Cursor<'_>) -> Result<(), EngineError> {
        let n = body.varint("the number of runs")?;
        if n & 1 == 1 {
            for _ in 0..body.varint("the number of floors")? {
                self.replica(body)?;
                body.varint("an element's number")?;
            }
        }
        for _ in 0..n >> 1 {
            self.run(body)?;
        }
        while !body.is_at_end() {
            self.replica(body)?;
            span(body)?;
            self.stamp(body)?;
            let start = *body;
            if body.byte("a removal")? > 2 {
                return Err(start.malformed("a removal"));
            }
        }
        Ok(())
    }

    fn run(self, body: &mut Cursor<'_>) -> Result<(), EngineError> {
        let start = *body;
        let flags = body.byte("a run")?;
        let (parent, removed, step) = (flags >> 2 & 3, flags >> 4 & 1, flags >> 5);
        if flags & 3 > 1 || parent > 2 || step > 2 || (step > 0 && removed == 0) {
            return Err(start.malformed("a run"));
        }
        self.stamp(body)?;
        let count = span(body)?;
        if parent > 0 {
            self.replica(body)?;
            body.varint("an element's number")?;
        }
        if removed == 1 {
            return self.stamp(body);
        }
        let length = body.varint("a run's length")?;
        let mut values = body.part(length, "a run")?;
        for _ in 0..count {
            message_pack(&mut values, self.depth_max)?;
        }
        if values.is_at_end() {
            Ok(())
        } else {
            Err(values.malformed("the end of a run"))
        }
    }

    fn key<'a>(
        self,
        body: &mut Cursor<'a>,
        before: &mut Option<&'a [u8]>,
    ) -> Result<(), EngineError> {
        let length = body.varint("a key's length")?;
        let start = *body;
        let key = body.take(length, "a key")?;
        whole_value(start, length, self.depth_max)?;
        if before.replace(key).is_some_and(|before| before >= key) {
            return Err(start.malformed("keys in ascending order"));
        }
        Ok(())
    }

    fn optional_value(self, body: &mut Cursor<'_>) -> Result<(), EngineError> {
        match body.varint("a value's length")?.checked_sub(1) {
            Some(length) => {
                whole_value(*body, length, self.depth_max)?;
                body.take(length, "a value").map(|_| ())
            }
            None => Ok(()),
        }
    }

    fn stamp(self, body: &mut Cursor<'_>) -> Result<(), EngineError> {
        index(body, self.refers.n_stamps, "a stamp index")
    }

    fn replica(self, body: &mut Cursor<'_>) -> Result<(), EngineError> {
        index(body, self.refers.n_replicas, "a replica index")
    }
}

fn index(body: &mut Cursor<'_>, n: u64, what: &'static str) -> Result<(), EngineError> {
    let start = *body;
    if body.varint(what)? < n {
        Ok(())
    } else {
        Err(start.malformed(what))
    }
}

/// The numbers of elements of one replica: the first, and how many.
fn span(body: &mut Cursor<'_>) -> Result<u64, EngineError> {
    const WHAT: &str = "elements' numbers";
    let start = *body;
    let first = body.varint(WHAT)?;
    let count = body.varint(WHAT)?;
    if first == 0 || count == 0 || count > RUN_MAX || first.checked_add(count).is_none() {
        return Err(start.malformed(WHAT));
    }
    Ok(count)
}
