//! The room by itself: what it does is looked at through a tiny registry and clients that only look at what they are
//! sent.

mod access;
mod answers;
mod appending;
mod asking;
mod batches;
mod broadcasts;
mod checking;
mod doubt;
mod fold;
mod life;
mod nodes;
mod offers;
mod opening;
mod presence;
mod reads;
mod registry;
mod size;
mod snapshots;
mod standing;
mod storage;
mod streaming;
mod trimming;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::checking::Replica;
use self::registry::{NoBang, TestRegistry};
use self::world::*;
use super::*;
use crate::engine::{EngineError, Folder, ValidateLimits, Validator};
use crate::error::{Action, ErrorCode, PeerError};
use crate::history::{Cursor, Digest, Epoch, EpochMode};
use crate::ids::{ChangeId, EngineId, RequestId};
use crate::limits::Limits;
use crate::registry::{
    DocumentMeta, DocumentSize, NewChange, NewDocument, OriginEntry, Outcome, RegistryError,
    Snapshot, StoredChange, Tail,
};
use crate::server::Engines;
use crate::server::registry::{RegistryAnswer, RegistryRequest};
use crate::wire::{
    AccessLevel, Ack, Changes, Compression, Continuation, ErrorMessage, Message, Opened, Push,
    Reassembler, Reference, Refuse, Reset, check_of, decode_frame,
};
