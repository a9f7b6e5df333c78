//! The bytes of every kind of node, pinned: what is stored today must be read for ever.
//!
//! Each change is commit 2 of replica 0102030405060708, at time 300 (`ac02`), over what commit 1 wrote. The layout is at
//! the top of `mergeable/format.rs` and `mergeable/sequence/wire.rs`.

#![allow(clippy::unwrap_used, reason = "test harness")]
#![allow(clippy::indexing_slicing, reason = "test harness")]

use std::fmt::{Debug, Write};

use bytes::Bytes;
use sync_core::engine::typed::{Typed, TypedDocument};
use sync_core::engine::{Document, Engine, ReplicaSeed};
use sync_core::mergeable::{
    Counter, Dictionary, LwwMap, Mergeable, OrMap, OrSet, Register, Sequence,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn replica<T: Mergeable>(seed: u128) -> TypedDocument<T> {
    let mut replica = Typed::new().create(ReplicaSeed(seed)).unwrap();
    replica.set_wall_time(300);
    replica
}

/// Head of a change: form, replica, commit 2, one stamp of this time and counter.
const HEAD: &str = "01 0102030405060708 02 01";
/// Head of a state of both commits: form, one replica, base, claims.
const STATE: &str = "02 01 0102030405060708 00 01 01 02";

#[track_caller]
fn check<T: Mergeable + Debug>(
    first: impl FnOnce(&mut T),
    second: impl FnOnce(&mut T),
    change: &str,
    state: &str,
    shown: &str,
) {
    let mut writer = replica::<T>(0x0102_0304_0506_0708);
    Typed::new().edit(&mut writer, usize::MAX, first).unwrap();
    Typed::new().edit(&mut writer, usize::MAX, second).unwrap();
    let made = writer.drain().local;
    let want = (hex(&bytes(change)), hex(&bytes(state)));
    let have = (hex(&made[1]), hex(&writer.snapshot().unwrap()));
    assert_eq!(have, want);

    let mut reader = replica::<T>(2);
    reader.import(&[made[0].clone(), bytes(change)]).unwrap();
    let mut loaded = replica::<T>(3);
    loaded.import_snapshot(&bytes(state)).unwrap();
    for replica in [&reader, &loaded] {
        let seen = Typed::new().read(replica, |value: &T| format!("{value:?}"));
        assert_eq!(seen.unwrap(), shown);
    }
}

#[test]
fn register() {
    check::<Register<u8>>(
        |register| register.set(1).unwrap(),
        |register| register.set(2).unwrap(),
        &format!("{HEAD} ac02 01  02 03 00 02 02"),
        &format!("{STATE} 01 00 02 ac02 01  02 03 00 02 02"),
        "Register(Some(2))",
    );
}

#[test]
fn lww_map() {
    check::<LwwMap<u8, u8>>(
        |map| map.insert(1, 1).unwrap(),
        |map| assert!(map.remove(&1).unwrap()),
        &format!("{HEAD} ac02 01  01 04 00 01 01 00"),
        &format!("{STATE} 01 00 02 ac02 01  01 04 00 01 01 00"),
        "{}",
    );
}

#[test]
fn counter() {
    check::<Counter>(
        |counter| counter.add(5),
        |counter| counter.add(-3),
        &format!("{HEAD} 0000  03 06 00 01 00 01 00 03"),
        &format!("{STATE} 01 00 02 0000  03 05 00 02 00 05 03"),
        "Counter(2)",
    );
}

#[test]
fn or_set() {
    check::<OrSet<u8>>(
        |set| {
            set.insert(7).unwrap();
        },
        |set| {
            set.remove(&7);
            set.insert(8).unwrap();
        },
        &format!("{HEAD} 0000  04 0c 01 07 00 01 00 01 00 01 08 01 00 00"),
        "04 01 0102030405060708 00 01 01 02 00  02 00 01 00 00 00 02 00 00  01 00  04 0d 01 07 01 00 01 00 01 01 01 08 01 01 00",
        "{8}",
    );
}

#[test]
fn or_map() {
    check::<OrMap<u8, Counter>>(
        |map| map.entry(7).unwrap().add(1),
        |map| map.entry(7).unwrap().add(1),
        &format!("{HEAD} 0000  05 0f 01 07 01 01 00 00 08  03 06 00 01 00 01 01 00"),
        &format!("{STATE} 01 00 02 00 00  05 0e 01 07 01 01 00 00 07  03 05 00 02 00 02 00"),
        "{7: Counter(2)}",
    );
}

#[test]
fn dictionary() {
    check::<Dictionary<u8, Counter>>(
        |map| map.entry(7).unwrap().add(1),
        |map| {
            map.remove(&7);
            map.entry(8).unwrap().add(1);
        },
        &format!("{HEAD} 0000  06 12 01 07 02 00 00 01 08 01 00 08  03 06 00 01 00 00 01 00"),
        &format!(
            "{STATE} 01 00 02 00 00  06 11 01 07 02 00 00 01 08 01 00 07  03 05 00 02 00 01 00"
        ),
        "{8: Counter(1)}",
    );
}

#[test]
fn sequence() {
    check::<Sequence<char>>(
        |text| text.insert_str(0, "abc").unwrap(),
        |text| {
            text.remove(1);
            text.push('d').unwrap();
        },
        &format!("{HEAD} 0000  07 0f 02 04 00 04 01 00 03 02 a164 00 02 01 00 00"),
        "04 01 0102030405060708 00 01 01 02 00  02 00 01 00 00 00 02 00 00  01 00  07 1a 06 00 00 01 01 02 a161 14 00 02 01 00 01 01 05 00 03 02 00 02 04 a163 a164",
        "['a', 'c', 'd']",
    );
}

#[test]
fn structure() {
    check::<(Counter, Option<Register<u8>>)>(
        |pair| pair.0.add(1),
        |pair| pair.1.get_or_insert_default().set(1).unwrap(),
        &format!("{HEAD} ac02 01  08 07 01 05  02 03 00 02 01"),
        &format!(
            "{STATE} 02 00 01 00 00 00 02 ac02 01  08 10 00 07  03 05 00 02 00 01 00  01 05  02 03 01 02 01"
        ),
        "(Counter(1), Some(Register(Some(1))))",
    );
}
