//! Checks the bytes of an update (lib0 v1) in one pass that allocates nothing, and tells a [`Visitor`] what is in them.
//! Only where containers might nest too deep, a second pass does.
//!
//! yrs decodes whatever passes without panicking, in memory proportional to the input. yrs alone reserves what a
//! count claims (4 bytes reserve 5 GB), recurses as deep as the input says, and takes clocks for signed numbers.
//!
//! ```text
//! update   := n section*n deletions
//! section  := n client clock block*n               clients descending, n > 0
//! block    := 0 len | 10 len | info [left] [right] [parent [key]] content
//! deletions := n (client m (clock len)*m)*n        clients in one direction, ranges ascending
//! ```
//!
//! After `Update::decode` of yrs 0.28 (`src/update.rs`) and `ItemContent::decode` (`src/block.rs`).

use super::cursor::{CLIENT_MAX, CLOCK_MAX, Cursor};
use super::graph::check_nesting;
use super::json;
use crate::engine::{EngineError, ValidateLimits};

const INFO_GC: u8 = 0;
pub(super) const INFO_SKIP: u8 = 10;
pub(super) const HAS_LEFT: u8 = 0x80;
pub(super) const HAS_RIGHT: u8 = 0x40;
const HAS_KEY: u8 = 0x20;
/// What a block holds. Collected ones say 0.
pub(super) const KIND: u8 = 0x0f;
/// Not used by the format; yrs ignores it, Yjs stumbles over it.
const UNUSED: u8 = 0x10;

/// For what passed before, or is the application's own and need not keep the limits.
pub(super) const UNLIMITED: ValidateLimits = ValidateLimits {
    bytes_max: usize::MAX,
    depth_max: u32::MAX,
};

/// Each makes yrs allocate a document of about a kilobyte for five bytes of input.
const SUBDOCUMENTS_MAX: u32 = 65_536;

/// The id of an element: client and clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) client: u64,
    pub(super) clock: u32,
}

/// A neighbour's id, and where it stands in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) id: Id,
    pub(super) bytes: (usize, usize),
}

/// One block of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) id: Id,
    /// Elements: clocks it takes. Zero for an empty string, which yrs leaves out.
    pub(super) len: u32,
    pub(super) left: Option<Link>,
    pub(super) right: Option<Link>,
    /// The element whose container it is in, where it says so.
    pub(super) parent: Option<Id>,
    pub(super) is_skip: bool,
    /// Whether it holds something that nothing can be in. What it held may be unknown, because it has been deleted.
    pub(super) is_plain: bool,
    /// Where it starts and ends in the input.
    pub(super) bytes: (usize, usize),
    /// Where its content starts.
    pub(super) content: usize,
}

/// Told what is in an update, in the order of the bytes. It may have been told things when the update turns out bad.
pub(super) trait Visitor {
    /// A block. Those of one client are contiguous.
    fn block(&mut self, block: Block) {
        let _ = block;
    }

    /// Text that is not ASCII, and its first element; told before its block.
    fn text(&mut self, start: Id, text: &str) {
        let _ = (start, text);
    }

    /// Where one value of a block of values ends in the input; told before its block.
    fn value(&mut self, end: usize) {
        let _ = end;
    }

    /// A range of deleted elements, never empty. Those of one client ascend.
    fn deleted(&mut self, id: Id, len: u32) {
        let _ = (id, len);
    }
}

/// Checks an update.
///
/// # Errors
/// [`EngineError::Malformed`] or [`EngineError::LimitExceeded`], naming what was wrong.
pub(super) fn scan(
    bytes: &[u8],
    limits: &ValidateLimits,
    visitor: &mut impl Visitor,
) -> Result<(), EngineError> {
    if bytes.len() > limits.bytes_max {
        return Err(exceeded(
            "size of a change in bytes",
            bytes.len(),
            limits.bytes_max,
        ));
    }
    let mut scan = Scan {
        cursor: Cursor::new(bytes),
        offset: 0,
        depth_max: limits.depth_max,
        subdocuments: 0,
        containers: 0,
        visitor,
    };
    scan.update()?;
    // Fewer cannot nest deeper, and to know takes memory.
    if scan.containers > limits.depth_max {
        check_nesting(bytes, limits.depth_max)
    } else {
        Ok(())
    }
}

fn exceeded(what: &'static str, value: usize, max: usize) -> EngineError {
    let wide = |n| u64::try_from(n).unwrap_or(u64::MAX);
    EngineError::LimitExceeded {
        what,
        value: wide(value),
        max: wide(max),
    }
}

struct Scan<'a, 'v, V> {
    cursor: Cursor<'a>,
    /// Of the value being read, for faults found after it.
    offset: usize,
    depth_max: u32,
    subdocuments: u32,
    containers: u32,
    visitor: &'v mut V,
}

impl<V: Visitor> Scan<'_, '_, V> {
    /// The fault that the value last marked is wrong.
    const fn wrong(&self, what: &'static str) -> EngineError {
        EngineError::Malformed {
            what,
            offset: self.offset,
        }
    }

    const fn mark(&mut self) {
        self.offset = self.cursor.at();
    }

    fn update(&mut self) -> Result<(), EngineError> {
        let mut previous = CLIENT_MAX + 1;
        for _ in 0..self.cursor.var_u32("number of clients")? {
            previous = self.section(previous)?;
        }
        self.deletions()?;
        if self.cursor.is_at_end() {
            Ok(())
        } else {
            Err(self.cursor.malformed("end of the update"))
        }
    }

    /// One client's blocks. A second section of a client would make yrs mix two runs of clocks, and an empty one panic.
    fn section(&mut self, previous: u64) -> Result<u64, EngineError> {
        self.mark();
        let n_blocks = self.cursor.var_u32("number of blocks")?;
        if n_blocks == 0 {
            return Err(self.wrong("number of blocks"));
        }
        self.mark();
        let client = self.cursor.client("client")?;
        if client >= previous {
            return Err(self.wrong("order of clients"));
        }
        self.mark();
        let first = self.cursor.clock("clock")?;
        let mut clock = first;
        for _ in 0..n_blocks {
            let start = self.cursor.at();
            let mut block = self.block(Id { client, clock })?;
            block.bytes = (start, self.cursor.at());
            clock = match clock.checked_add(block.len) {
                Some(next) if next <= CLOCK_MAX => next,
                _ => {
                    return Err(EngineError::Malformed {
                        what: "length of a block",
                        offset: start,
                    });
                }
            };
            self.visitor.block(block);
        }
        if clock == first {
            return Err(self.wrong("blocks without elements"));
        }
        Ok(client)
    }

    fn block(&mut self, id: Id) -> Result<Block, EngineError> {
        self.mark();
        let info = self.cursor.byte("block info")?;
        let mut block = Block {
            id,
            len: 0,
            left: None,
            right: None,
            parent: None,
            is_skip: false,
            is_plain: false,
            bytes: (0, 0),
            content: self.cursor.at(),
        };
        if info == INFO_GC || info == INFO_SKIP {
            block.is_skip = info == INFO_SKIP;
            block.len = self.len("length of a block")?;
            return Ok(block);
        }
        if info & UNUSED != 0 {
            return Err(self.wrong("block info"));
        }
        self.place(info, &mut block)?;
        block.content = self.cursor.at();
        block.is_plain = !matches!(info & KIND, 1 | 7);
        match info & KIND {
            1 => block.len = self.len("number of deleted elements")?,
            3 => {
                self.cursor.buffer("binary")?;
                block.len = 1;
            }
            4 => block.len = self.text(id)?,
            5 => {
                self.json("embed")?;
                block.len = 1;
            }
            6 => {
                self.cursor.string("format key")?;
                self.json("format value")?;
                block.len = 1;
            }
            7 => {
                self.container()?;
                self.containers += 1;
                block.len = 1;
            }
            8 => {
                block.len = self.len("number of values")?;
                for _ in 0..block.len {
                    self.any(0)?;
                    self.visitor.value(self.cursor.at());
                }
            }
            9 => {
                self.subdocument()?;
                block.len = 1;
            }
            // 2 was JSON in Yjs before version 13, of which yrs reads one string too many.
            _ => return Err(self.wrong("block content")),
        }
        Ok(block)
    }

    /// A block is in the container of its neighbours; one without names its own.
    fn place(&mut self, info: u8, block: &mut Block) -> Result<(), EngineError> {
        if info & HAS_LEFT != 0 {
            block.left = Some(self.link("left neighbour")?);
        }
        if info & HAS_RIGHT != 0 {
            block.right = Some(self.link("right neighbour")?);
        }
        if info & (HAS_LEFT | HAS_RIGHT) != 0 {
            return Ok(());
        }
        self.mark();
        match self.cursor.var_u32("kind of parent")? {
            0 => block.parent = Some(self.id("parent")?),
            1 => {
                self.cursor.string("root name")?;
            }
            _ => return Err(self.wrong("kind of parent")),
        }
        if info & HAS_KEY != 0 {
            self.cursor.string("key")?;
        }
        Ok(())
    }

    fn link(&mut self, what: &'static str) -> Result<Link, EngineError> {
        let start = self.cursor.at();
        let id = self.id(what)?;
        Ok(Link {
            id,
            bytes: (start, self.cursor.at()),
        })
    }

    fn id(&mut self, what: &'static str) -> Result<Id, EngineError> {
        Ok(Id {
            client: self.cursor.client(what)?,
            clock: self.cursor.clock(what)?,
        })
    }

    /// A number of elements, which takes no memory but must not be zero.
    fn len(&mut self, what: &'static str) -> Result<u32, EngineError> {
        self.mark();
        match self.cursor.var_u32(what)? {
            0 => Err(self.wrong(what)),
            len => Ok(len),
        }
    }

    /// A string, measured as Yjs does: in UTF-16 code units. It may be empty: yrs splits a surrogate pair so.
    fn text(&mut self, id: Id) -> Result<u32, EngineError> {
        self.mark();
        let text = self.cursor.string("text")?;
        let units = if text.is_ascii() {
            text.len()
        } else {
            self.visitor.text(id, text);
            text.chars().map(char::len_utf16).sum()
        };
        u32::try_from(units).map_err(|_| self.wrong("text"))
    }

    fn json(&mut self, what: &'static str) -> Result<(), EngineError> {
        let text = self.cursor.string(what)?;
        json::check(text, self.cursor.at() - text.len(), self.depth_max)
    }

    fn container(&mut self) -> Result<(), EngineError> {
        self.mark();
        match self.cursor.byte("type of a container")? {
            // Array, map, text, XML fragment, XML text; 9 is what yrs writes for a document inside `In::Doc`.
            0..=2 | 4 | 6 | 9 => Ok(()),
            3 => self.cursor.string("name of an XML element").map(|_| ()),
            // 5, an XML hook, has a name that yrs does not read; 7 is a weak link, a feature we do not build.
            _ => Err(self.wrong("type of a container")),
        }
    }

    fn subdocument(&mut self) -> Result<(), EngineError> {
        self.subdocuments += 1;
        if self.subdocuments > SUBDOCUMENTS_MAX {
            return Err(EngineError::LimitExceeded {
                what: "number of subdocuments",
                value: u64::from(self.subdocuments),
                max: u64::from(SUBDOCUMENTS_MAX),
            });
        }
        self.cursor.string("id of a subdocument")?;
        self.any(0)
    }

    /// One value in lib0's own encoding. Recursion is bounded by the limit.
    fn any(&mut self, depth: u32) -> Result<(), EngineError> {
        self.mark();
        match self.cursor.byte("value")? {
            // Undefined, null, false, true.
            127 | 126 | 121 | 120 => Ok(()),
            125 => self.cursor.var_i64("integer"),
            124 => self.cursor.take(4, "32-bit float").map(|_| ()),
            123 => self.cursor.take(8, "64-bit float").map(|_| ()),
            122 => self.cursor.take(8, "big integer").map(|_| ()),
            119 => self.cursor.string("string").map(|_| ()),
            118 => {
                let depth = self.deeper(depth)?;
                for _ in 0..self.cursor.var_u32("number of entries")? {
                    self.cursor.string("key of an entry")?;
                    self.any(depth)?;
                }
                Ok(())
            }
            117 => {
                let depth = self.deeper(depth)?;
                for _ in 0..self.cursor.var_u32("number of items")? {
                    self.any(depth)?;
                }
                Ok(())
            }
            116 => self.cursor.buffer("buffer").map(|_| ()),
            _ => Err(self.wrong("value")),
        }
    }

    fn deeper(&self, depth: u32) -> Result<u32, EngineError> {
        if depth < self.depth_max {
            return Ok(depth + 1);
        }
        let (value, max) = (u64::from(depth) + 1, u64::from(self.depth_max));
        Err(EngineError::LimitExceeded {
            what: "nesting of a value",
            value,
            max,
        })
    }

    /// yrs keeps these ranges as they come and searches them as sorted, and lets a client's last entry win.
    fn deletions(&mut self) -> Result<(), EngineError> {
        let mut previous: Option<u64> = None;
        let mut direction = None;
        for _ in 0..self.cursor.var_u32("number of clients with deletions")? {
            self.mark();
            let client = self.cursor.client("client of deletions")?;
            if let Some(previous) = previous {
                let order = previous.cmp(&client);
                if order.is_eq() || *direction.get_or_insert(order) != order {
                    return Err(self.wrong("order of clients of deletions"));
                }
            }
            previous = Some(client);
            let mut from = 0;
            for _ in 0..self.cursor.var_u32("number of deletions")? {
                self.mark();
                let clock = self.cursor.clock("clock of a deletion")?;
                if clock < from {
                    return Err(self.wrong("order of deletions"));
                }
                let len = self.len("length of a deletion")?;
                from = match clock.checked_add(len) {
                    Some(end) if end <= CLOCK_MAX => end,
                    _ => return Err(self.wrong("length of a deletion")),
                };
                self.visitor.deleted(Id { client, clock }, len);
            }
        }
        Ok(())
    }
}

/// For when only the check is wanted.
pub(super) struct Ignore;

impl Visitor for Ignore {}
