//! A document's content as JSON.

use ::automerge::{AutoCommit, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};

use super::document::engine_error;
use crate::engine::EngineError;
use crate::json::Json;

/// Objects in objects that are written. Changes can nest them without bound, and each takes some stack.
const DEPTH_MAX: u32 = 128;

pub(super) fn to_json(doc: &AutoCommit) -> Result<String, EngineError> {
    let mut json = Json::default();
    object(doc, &ROOT, ObjType::Map, 0, &mut json)?;
    Ok(json.into_string())
}

fn object(
    doc: &AutoCommit,
    id: &ObjId,
    kind: ObjType,
    depth: u32,
    json: &mut Json,
) -> Result<(), EngineError> {
    if depth > DEPTH_MAX {
        return Err(EngineError::LimitExceeded {
            what: "nesting of objects",
            value: u64::from(depth),
            max: u64::from(DEPTH_MAX),
        });
    }
    match kind {
        ObjType::Map | ObjType::Table => json.object(doc.keys(id), |json, key| {
            json.key(&key);
            let found = doc.get(id, key.as_str()).map_err(engine_error)?;
            value(doc, found, depth, json)
        }),
        ObjType::List => json.list(0..doc.length(id), |json, index| {
            let found = doc.get(id, index).map_err(engine_error)?;
            value(doc, found, depth, json)
        }),
        ObjType::Text => {
            json.text(&doc.text(id).map_err(engine_error)?);
            Ok(())
        }
    }
}

fn value(
    doc: &AutoCommit,
    found: Option<(Value<'_>, ObjId)>,
    depth: u32,
    json: &mut Json,
) -> Result<(), EngineError> {
    match found {
        Some((Value::Object(kind), id)) => object(doc, &id, kind, depth + 1, json)?,
        Some((Value::Scalar(scalar), _)) => match scalar.as_ref() {
            ScalarValue::Str(text) => json.text(text),
            ScalarValue::Bytes(bytes) | ScalarValue::Unknown { bytes, .. } => json.bytes(bytes),
            ScalarValue::Int(number) | ScalarValue::Timestamp(number) => json.plain(number),
            ScalarValue::Uint(number) => json.plain(number),
            ScalarValue::F64(number) => json.float(*number),
            ScalarValue::Counter(counter) => json.plain(i64::from(counter)),
            ScalarValue::Boolean(value) => json.plain(value),
            ScalarValue::Null => json.plain("null"),
        },
        None => json.plain("null"),
    }
    Ok(())
}
