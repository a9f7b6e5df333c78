//! Honest inputs: the golden vectors of the wire, and what clients, engines and registries write.

use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use flate2::write::{DeflateEncoder, GzEncoder};
use serde_json::Value;
use sync_core::engine::opaque::Opaque;
use sync_core::engine::typed::Typed;
use sync_core::engine::yrs::{Yrs, YrsDocument};
use sync_core::engine::{Document, Engine, ReplicaSeed};
use sync_core::history::{Digest, Epoch, Seq};
use sync_core::ids::{ChangeId, DocumentId, EngineId, OriginId, User};
use sync_core::mergeable::{
    Counter, Dictionary, LwwMap, Mergeable, OrMap, OrSet, Register, Sequence,
};
use sync_core::yrs::{
    Any, Array, ArrayPrelim, GetString, Map, MapPrelim, Text, WriteTxn, Xml, XmlElementPrelim,
    XmlFragment,
};
use sync_server::registry::{Export, NewChange, NewDocument, Snapshot};

pub(crate) fn of(name: &str) -> Vec<Vec<u8>> {
    match name {
        "frame" => frames(),
        "reassembly" => reassembly(),
        "gzip" => gzip(),
        "client_session" => client_session(),
        "server_session" => server_session(),
        "room" => room(),
        "yrs_update" => yrs_update(),
        "yrs_ledger" => yrs_ledger(),
        "mergeable" => mergeable(),
        "opaque" => opaque(),
        "world" => world(),
        "export_file" => export_file(),
        other => panic!("no seeds for {other}"),
    }
}

fn bytes_of(value: &Value) -> Vec<u8> {
    let hex = value.as_str().unwrap().as_bytes();
    hex.chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn vector_file(file: &str) -> Value {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors");
    serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap()
}

/// The type of each golden message, and its bytes.
fn payloads() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    files.sort_unstable();
    let mut found = Vec::new();
    for file in files {
        for vector in vector_file(&file)["vectors"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let kind = vector["message"]["type"].as_str().unwrap_or_default();
            found.push((kind.to_owned(), bytes_of(&vector["payload"])));
        }
    }
    found
}

fn frames() -> Vec<Vec<u8>> {
    let plain = payloads().into_iter().map(|(_, payload)| {
        let mut frame = vec![0];
        frame.extend(payload);
        frame
    });
    let frames = vector_file("frames.json");
    let others = frames["frames"].as_array().unwrap().iter();
    plain
        .chain(others.map(|frame| bytes_of(&frame["frame"])))
        .filter(|frame| frame.len() < 4096)
        .collect()
}

/// Limits, then fragments: channel, id, how the index follows, total, length and bytes.
fn reassembly() -> Vec<Vec<u8>> {
    let limits = [0, 16, 4];
    let mut whole = limits.to_vec();
    let mut interleaved = limits.to_vec();
    for (n, piece) in b"offline first".chunks(5).enumerate() {
        for (to, channel) in [(&mut whole, 1), (&mut interleaved, n as u8 % 2)] {
            to.extend([channel, 1, 7]);
            if n == 0 || (channel == 1 && n == 1) {
                to.push(3);
            }
            to.push(u8::try_from(piece.len()).unwrap());
            to.extend(piece);
        }
    }
    let aborted = [&whole[..14], &[1, 1, 1, 0], &whole[3..]].concat();
    let closed = [&whole[..14], &[1, 0, 2], &whole[3..]].concat();
    let large = [&[0, 64, 4][..], &[0, 0, 7, 2, 254, 0], &[0, 0, 7, 254, 0]].concat();
    vec![whole, interleaved, aborted, closed, large]
}

fn gzip() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for frame in frames().iter().take(20) {
        let payload = &frame[1..];
        seeds.push([&[3, 0, 64], payload].concat());
    }
    let text = b"offline first, ".repeat(40);
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&text).unwrap();
    seeds.push([&[0, 0, 64], gzip.finish().unwrap().as_slice()].concat());
    for level in [0, 1, 9] {
        let mut deflate = DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
        deflate.write_all(&text).unwrap();
        let deflate = deflate.finish().unwrap();
        seeds.push([&[1, 0, 64], deflate.as_slice()].concat());
        seeds.push([&[2, 0, 1], deflate.as_slice()].concat());
    }
    seeds
}

/// A turn that hands the client a message: all is made to fit.
fn received(out: &mut Vec<u8>, mends: u8, payload: &[u8]) {
    out.extend([0, 0, mends]);
    out.extend(u16::try_from(payload.len()).unwrap().to_le_bytes());
    out.extend_from_slice(payload);
}

/// A turn: the document, and what to do.
const CONNECTED: [u8; 2] = [0, 11];
const OPEN: [u8; 3] = [0, 12, 1];
const EDIT: [u8; 4] = [0, 13, 3, 4];
const ELAPSE: [u8; 3] = [0, 15, 0];

fn client_session() -> Vec<Vec<u8>> {
    let payloads = payloads();
    let of_kind = |kind: &str| {
        payloads
            .iter()
            .filter(|(found, _)| found == kind)
            .map(|(_, payload)| payload.clone())
            .collect::<Vec<_>>()
    };
    let mut seeds = Vec::new();
    let welcome = &of_kind("Welcome")[0];
    for (n, opened) in of_kind("Opened").iter().enumerate() {
        let mut begin = vec![n as u8 % 4];
        begin.extend(CONNECTED);
        received(&mut begin, 0xf, welcome);
        begin.extend(OPEN);
        begin.extend(EDIT);
        received(&mut begin, 0xf, opened);
        received(&mut begin, 0x1f, opened);
        // Everything that a server says, each once, on top.
        let mut all = begin.clone();
        for kind in [
            "Snapshot",
            "Snapshot",
            "Changes",
            "Ack",
            "Changes",
            "Presence",
            "Broadcast",
        ] {
            for payload in of_kind(kind).iter().take(2) {
                received(&mut all, 0x0f, payload);
                received(&mut all, 0x1f, payload);
            }
        }
        all.extend(EDIT);
        for (kind, payload) in &payloads {
            if payload.len() < 300 && kind != "Welcome" && kind != "Opened" {
                received(&mut all, 0x0f, payload);
            }
        }
        all.extend(ELAPSE);
        seeds.push(all);
        for kind in [
            "Refuse",
            "Access",
            "Closed",
            "Error",
            "GoAway",
            "FoldRequest",
            "Fragment",
        ] {
            for payload in of_kind(kind).iter().take(2) {
                let mut one = begin.clone();
                received(&mut one, 0x0f, payload);
                one.extend(EDIT);
                one.extend(ELAPSE);
                received(&mut one, 0x0f, opened);
                seeds.push(one);
            }
        }
    }
    seeds
}

/// Turns: which peer, which document, what.
fn server_session() -> Vec<Vec<u8>> {
    let payloads = payloads();
    let of_kind = |kind: &str| {
        payloads
            .iter()
            .filter(|(found, payload)| found == kind && payload.len() < 400)
            .map(|(_, payload)| payload.clone())
            .collect::<Vec<_>>()
    };
    let says = |out: &mut Vec<u8>, peer: u8, mends: u8, payload: &[u8]| {
        out.extend([peer, 0, 2, mends]);
        out.extend(u16::try_from(payload.len()).unwrap().to_le_bytes());
        out.extend_from_slice(payload);
    };
    // Runs the oldest call, as it should be, twice: it is carried out, and answered.
    let calls = |out: &mut Vec<u8>| out.extend([0, 0, 13, 0, 0].repeat(2));
    let mut seeds = Vec::new();
    for (n, open) in of_kind("Open").iter().enumerate() {
        let mut begin = vec![n as u8 % 4];
        begin.extend([0, 0, 13, 0, 0].repeat(8));
        begin.extend([0, 0, 0, 1 + n as u8 % 3]);
        says(&mut begin, 0, if n % 2 == 0 { 0x1f } else { 0x0f }, open);
        begin.extend([0, 0, 13, 0, 0].repeat(6));
        for push in of_kind("Push") {
            let mut seed = begin.clone();
            says(&mut seed, 0, 0x0f, &push);
            calls(&mut seed);
            seed.extend([0, 0, 18, 1, 2]);
            says(&mut seed, 0, 0x05, &push);
            calls(&mut seed);
            seed.extend([0, 0, 15, 0]);
            // Another peer, and the cut of the honest client.
            seed.extend([0, 0, 0, 6]);
            says(&mut seed, 1, 0x1f, open);
            seed.extend([0, 0, 13, 0, 0].repeat(4));
            says(&mut seed, 1, 0x0f, &push);
            seed.extend([0, 0, 19, 0]);
            seed.extend([0, 0, 15, 0].repeat(3));
            calls(&mut seed);
            seeds.push(seed);
        }
        for (kind, payload) in &payloads {
            let is_other = !matches!(kind.as_str(), "Push" | "Open" | "Welcome" | "Opened");
            if n < 2 && is_other && payload.len() < 200 {
                let mut seed = begin.clone();
                says(&mut seed, 0, 0x0f, payload);
                calls(&mut seed);
                says(&mut seed, 0, 0x0f, payload);
                seed.extend([0, 0, 20, 1]);
                calls(&mut seed);
                seeds.push(seed);
            }
        }
    }
    seeds
}

/// Turns: which session, what.
fn room() -> Vec<Vec<u8>> {
    // The oldest call, answered as it should be.
    let answer = [0, 6, 0, 7];
    let mut seeds = Vec::new();
    for settings in 0..8 {
        let mut seed = vec![settings];
        for session in 0..3 {
            seed.extend([session, 0, 4, 1, session]);
            seed.extend(answer.repeat(5));
        }
        for session in [0, 1, 0, 2, 1] {
            seed.extend([session, 2, 0x12]);
            seed.extend(answer.repeat(3));
        }
        // Presence, a broadcast, a fold, a trim, what may be done, and time.
        seed.extend([0, 16, 1, 1, 2, 3, 4, 0, 17, 1, 2, 3, 4, 0, 18, 0]);
        seed.extend(answer.repeat(4));
        seed.extend([0, 13, 7, 0, 10, 0, 0, 13, 5, 9]);
        seed.extend(answer.repeat(4));
        for how in [5, 0x42, 0x71, 3] {
            seed.extend([1, 0, how, 2, 9, 1, 1, 1]);
            seed.extend(answer.repeat(4));
        }
        seed.extend([1, 12, 2, 11, 0, 10, 0]);
        seeds.push(seed);
    }
    seeds
}

fn replica(seed: u128) -> YrsDocument {
    Yrs::new().create(ReplicaSeed(seed)).unwrap()
}

/// Edits of every kind, each a change.
fn edits(document: &mut YrsDocument) -> Vec<Bytes> {
    for step in 0..9 {
        Yrs::new()
            .edit(document, usize::MAX, |txn| {
                let text = txn.get_or_insert_text("text");
                let map = txn.get_or_insert_map("map");
                let array = txn.get_or_insert_array("array");
                let xml = txn.get_or_insert_xml_fragment("xml");
                match step {
                    0 => text.insert(txn, 0, "hello 😀"),
                    1 => {
                        let end = text.get_string(txn).encode_utf16().count();
                        text.remove_range(txn, u32::try_from(end).unwrap() - 6, 4);
                    }
                    2 => {
                        let bold = [("bold".into(), Any::from(true))];
                        text.insert_with_attributes(txn, 0, "b", bold.into());
                    }
                    3 => drop(map.insert(txn, "k", 1.5)),
                    4 => drop(map.insert(txn, "k", MapPrelim::from([("inner", "value")]))),
                    5 => drop(array.push_back(txn, ArrayPrelim::from([1, 2, 3]))),
                    6 => array.insert_range(txn, 0, ["one", "two"]),
                    7 => {
                        let element = xml.push_back(txn, XmlElementPrelim::empty("p"));
                        element.insert_attribute(txn, "class", "wide");
                    }
                    _ => map.remove(txn, "k").map_or((), drop),
                }
            })
            .unwrap();
    }
    document.drain().local
}

/// What two replicas write, each on top of the other's, and their states.
fn changes() -> Vec<Bytes> {
    let (mut a, mut b) = (replica(1), replica(2));
    let mut changes = edits(&mut a);
    b.import(&changes).unwrap();
    changes.extend(edits(&mut b));
    a.import(&changes).unwrap();
    changes.extend(edits(&mut a));
    changes
}

fn yrs_update() -> Vec<Vec<u8>> {
    let changes = changes();
    let mut document = replica(3);
    let mut seeds = Vec::new();
    for change in &changes {
        seeds.push([&[0], &change[..]].concat());
        seeds.push([&[1], &change[..]].concat());
    }
    document.import(&changes[..12]).unwrap();
    let version = document.version();
    document.import(&changes).unwrap();
    let since = document.since(&version).unwrap().unwrap();
    seeds.push([&[0], &since[..]].concat());
    seeds.push([&[1], &document.snapshot().unwrap()[..]].concat());
    seeds
}

fn yrs_ledger() -> Vec<Vec<u8>> {
    let changes = changes();
    let log = |changes: &[Bytes], author: &dyn Fn(usize) -> u8| {
        let mut seed = Vec::new();
        for (n, change) in changes.iter().enumerate() {
            seed.extend([author(n), 1]);
            seed.extend(u16::try_from(change.len()).unwrap().to_le_bytes());
            seed.extend_from_slice(change);
        }
        seed
    };
    let owners = |n: usize| u8::from((9..18).contains(&n));
    let mut seeds: Vec<_> = [3, 9, 12, changes.len()]
        .map(|n| log(&changes[..n], &owners))
        .into();
    let mut document = replica(3);
    document.import(&changes).unwrap();
    let whole = document.snapshot().unwrap();
    // Brought at once, by somebody who reconciles.
    let mut reconciled = vec![0, 0];
    reconciled.extend(u16::try_from(whole.len()).unwrap().to_le_bytes());
    reconciled.extend_from_slice(&whole);
    seeds.push(reconciled);
    seeds
}

/// Pieces: what each is, its length and its bytes.
fn pieces(begin: &[u8], kinds: &[u8], pieces: &[Bytes]) -> Vec<u8> {
    let mut seed = begin.to_vec();
    for (piece, kind) in pieces.iter().zip(kinds.iter().cycle()) {
        seed.push(*kind);
        seed.extend(u16::try_from(piece.len()).unwrap().to_le_bytes());
        seed.extend_from_slice(piece);
    }
    seed
}

/// What two replicas of a document write, and its state, whole and compacted.
fn written<T: Mergeable>(kind: u8, edit: impl Fn(&mut T, u8)) -> Vec<Vec<u8>> {
    let engine = Typed::<T>::new();
    let mut a = engine.create(ReplicaSeed(0x1234)).unwrap();
    let mut b = engine.create(ReplicaSeed(0x4321)).unwrap();
    let mut changes = Vec::new();
    for n in 0..4 {
        for document in [&mut a, &mut b] {
            engine
                .edit(document, usize::MAX, |value| edit(value, n))
                .unwrap();
            changes.extend(document.drain().local);
            document.import(&changes).unwrap();
        }
    }
    a.import(&changes).unwrap();
    let mut seeds = vec![pieces(&[kind], &[1], &changes)];
    changes.push(a.snapshot().unwrap());
    seeds.push(pieces(&[kind], &[1, 1, 0], &changes));
    let horizon = a.version();
    a.compact(&horizon).unwrap();
    seeds.push(pieces(&[kind], &[0], &[a.snapshot().unwrap()]));
    seeds
}

fn mergeable() -> Vec<Vec<u8>> {
    let mut seeds = written::<Register<u8>>(0, |it, n| it.set(n).unwrap());
    seeds.extend(written::<Counter>(1, |it, n| it.add(i64::from(n) - 1)));
    seeds.extend(written::<LwwMap<u8, String>>(2, |it, n| {
        it.insert(n % 2, n.to_string()).unwrap();
        it.remove(&(n % 3)).unwrap();
    }));
    seeds.extend(written::<OrSet<u8>>(3, |it, n| {
        it.insert(n % 2).unwrap();
        it.remove(&(n % 3));
    }));
    seeds.extend(written::<OrMap<u8, Counter>>(4, |it, n| {
        it.entry(n % 2).unwrap().add(3);
        it.remove(&(n % 3));
    }));
    seeds.extend(written::<Dictionary<u8, Sequence<char>>>(5, |it, n| {
        it.entry(n % 2).unwrap().insert_str(0, "ab").unwrap();
    }));
    seeds.extend(written::<Sequence<char>>(6, |it, n| {
        it.insert_str(usize::from(n), "abc").unwrap();
        it.remove(usize::from(n));
    }));
    seeds
}

fn opaque() -> Vec<Vec<u8>> {
    let engine = Opaque::new();
    let mut document = engine.create(ReplicaSeed(7)).unwrap();
    let mut changes = Vec::new();
    for text in ["one", "two", "three"] {
        engine
            .edit(&mut document, usize::MAX, |log| log.push(text))
            .unwrap();
        changes.extend(document.drain().local);
    }
    let pending = document.snapshot().unwrap();
    document.import(&changes[..2]).unwrap();
    let some = document.snapshot().unwrap();
    vec![
        pieces(&[], &[2, 1, 3], &changes),
        pieces(&[], &[0], &[pending, some]),
    ]
}

/// Settings, and operations as they are drawn.
fn world() -> Vec<Vec<u8>> {
    let mut random = crate::mutate::Random::new("worlds");
    (0..40).map(|n| random.bytes(40 + n * 4)).collect()
}

fn export_file() -> Vec<Vec<u8>> {
    let mut document = NewDocument::new(
        DocumentId::new("notes/42").unwrap(),
        EngineId::YRS,
        Epoch(7),
    );
    let changes: Vec<NewChange> = changes()
        .into_iter()
        .zip(1..)
        .map(|(bytes, number)| {
            let origin = OriginId(u128::from(number % 2 == 0) + 1);
            NewChange::new(ChangeId { origin, number }, User::new("ada"), bytes)
        })
        .collect();
    let export = Export::new(document.clone(), changes).unwrap();
    document.snapshot = Some(Snapshot::new(Seq(3), Digest(5), "state".into()));
    let short = export.log[..2].to_vec();
    let with_snapshot = Export::new(document, short).unwrap();
    let mut seeds = Vec::new();
    for export in [export, with_snapshot] {
        let mut file = Vec::new();
        export.write_to(&mut file).unwrap();
        seeds.push([&[0], &file[..]].concat());
        // The same, as sections whose sums the target makes.
        let mut sections = vec![1];
        let mut rest = &file[12..];
        while let Some((&tag, after)) = rest.split_first() {
            let (length, after) = after.split_first_chunk().unwrap();
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
            let (body, after) = after.split_at(length);
            let body = if tag == 4 { &body[..length - 8] } else { body };
            sections.push(tag);
            sections.extend(u16::try_from(body.len()).unwrap().to_le_bytes());
            sections.extend_from_slice(body);
            rest = &after[8..];
        }
        seeds.push(sections);
    }
    seeds
}
