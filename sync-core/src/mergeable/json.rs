//! Documents of mergeable types as JSON, without the types.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::node::{Node, Nodes};
use crate::engine::EngineError;
use crate::json::Json;

/// What the nodes of a place show. Where versions of an application disagree about the kind of a place, an object of all of
/// them.
pub(super) fn write(place: &Nodes, json: &mut Json) -> Result<(), EngineError> {
    let mut nodes = place.nodes();
    match (nodes.next(), nodes.next()) {
        (None, _) => {
            json.plain("null");
            Ok(())
        }
        (Some((_, only)), None) => node(only, json),
        _ => json.object(place.nodes(), |json, (kind, held)| {
            json.key(&format!("{kind:?}"));
            node(held, json)
        }),
    }
}

fn node(held: &Node, json: &mut Json) -> Result<(), EngineError> {
    match held {
        Node::LwwMap(held) => json.object(held.values(), |json, (name, held)| {
            key(name, json)?;
            value(held, json)
        }),
        Node::Register(held) => match held.value() {
            Some(held) => value(held, json),
            None => {
                json.plain("null");
                Ok(())
            }
        },
        Node::Counter(held) => {
            json.plain(held.value());
            Ok(())
        }
        Node::OrSet(held) => json.list(held.live(), |json, held| value(held, json)),
        Node::OrMap(held) => json.object(held.live(), |json, (name, held)| {
            key(name, json)?;
            write(held, json)
        }),
        Node::Dictionary(held) => json.object(held.live(), |json, (name, held)| {
            key(name, json)?;
            write(held, json)
        }),
        Node::Sequence(held) => {
            let values = held.values();
            match text(&values) {
                Some(text) => {
                    json.text(&text);
                    Ok(())
                }
                None => json.list(&values, |json, held| value(held, json)),
            }
        }
        Node::Struct(fields) => json.object(fields.iter(), |json, (tag, field)| {
            json.key(&tag.to_string());
            write(field, json)
        }),
    }
}

/// The characters, if the elements are nothing else.
fn text(values: &[Vec<u8>]) -> Option<String> {
    let characters = values.iter().map(|value| {
        let text: &str = rmp_serde::from_slice(value).ok()?;
        let mut characters = text.chars();
        characters.next().filter(|_| characters.as_str().is_empty())
    });
    let text = characters.collect::<Option<String>>()?;
    (!text.is_empty()).then_some(text)
}

/// A key as text: itself if it is text, else its JSON.
fn key(bytes: &[u8], json: &mut Json) -> Result<(), EngineError> {
    let mut written = Json::default();
    value(bytes, &mut written)?;
    json.key_of(written);
    Ok(())
}

/// What is in MessagePack, as JSON.
fn value(bytes: &[u8], json: &mut Json) -> Result<(), EngineError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    Transcribed(json)
        .deserialize(&mut deserializer)
        .map_err(|_| EngineError::Malformed {
            what: "MessagePack value",
            offset: 0,
        })
}

/// Writes down what it is told. Nesting has been checked.
struct Transcribed<'a>(&'a mut Json);

impl<'de> DeserializeSeed<'de> for Transcribed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Transcribed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.plain(value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.plain(value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.plain(value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.float(value);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.text(value);
        Ok(())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<(), E> {
        self.0.bytes(value);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.plain("null");
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        self.0.plain("null");
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.0.begin('[');
        while items.next_element_seed(Item(self.0))?.is_some() {}
        self.0.end(']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        self.0.begin('{');
        loop {
            let mut key = Json::default();
            if entries.next_key_seed(Transcribed(&mut key))?.is_none() {
                break;
            }
            self.0.separate();
            self.0.key_of(key);
            entries.next_value_seed(Transcribed(self.0))?;
        }
        self.0.end('}');
        Ok(())
    }
}

/// An item of a list, if there is one more.
struct Item<'a>(&'a mut Json);

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.separate();
        Transcribed(self.0).deserialize(deserializer)
    }
}
