//! Writes JSON: what people and tools read of documents whose engines do not write it themselves.

use std::fmt::{Display, Write};

/// JSON in the making.
#[derive(Debug, Default)]
pub(crate) struct Json(String);

impl Json {
    pub(crate) fn into_string(self) -> String {
        self.0
    }

    /// What is JSON as it stands: `null`, `true`, integers.
    pub(crate) fn plain(&mut self, value: impl Display) {
        let _ = write!(self.0, "{value}");
    }

    /// A number, or `null` in the place of one that JSON does not have.
    pub(crate) fn float(&mut self, value: f64) {
        if value.is_finite() {
            self.plain(value);
        } else {
            self.plain("null");
        }
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.0.push('"');
        for c in value.chars() {
            match c {
                '"' | '\\' => self.0.extend(['\\', c]),
                '\n' => self.0.push_str("\\n"),
                '\u{0}'..='\u{1f}' => self.plain(format_args!("\\u{:04x}", u32::from(c))),
                c => self.0.push(c),
            }
        }
        self.0.push('"');
    }

    /// As text: two hexadecimal digits for each.
    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.0.push('"');
        for byte in value {
            self.plain(format_args!("{byte:02x}"));
        }
        self.0.push('"');
    }

    /// A list of what `each` writes.
    pub(crate) fn list<T, E>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T) -> Result<(), E>,
    ) -> Result<(), E> {
        self.begin('[');
        for item in items {
            self.separate();
            each(self, item)?;
        }
        self.end(']');
        Ok(())
    }

    /// An object. `each` writes the [key](Self::key), and the value.
    pub(crate) fn object<T, E>(
        &mut self,
        entries: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T) -> Result<(), E>,
    ) -> Result<(), E> {
        self.begin('{');
        for entry in entries {
            self.separate();
            each(self, entry)?;
        }
        self.end('}');
        Ok(())
    }

    pub(crate) fn key(&mut self, key: &str) {
        self.text(key);
        self.0.push(':');
    }

    /// A key that is JSON: its text, if that is what it is.
    pub(crate) fn key_of(&mut self, key: Self) {
        if key.0.starts_with('"') {
            self.0.push_str(&key.0);
            self.0.push(':');
        } else {
            self.key(&key.0);
        }
    }

    /// The beginning of a list or an object.
    pub(crate) fn begin(&mut self, bracket: char) {
        self.0.push(bracket);
    }

    pub(crate) fn end(&mut self, bracket: char) {
        self.0.push(bracket);
    }

    /// Before each item or key.
    pub(crate) fn separate(&mut self) {
        // Text ends with its quotation mark.
        if !self.0.ends_with(['[', '{']) {
            self.0.push(',');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut json = Json::default();
        let texts = ["", "a\"b\\c", "\n\r\t\u{1}\u{7f}", "😀 한국"];
        let written: Result<(), ()> =
            json.object(texts.iter().zip(0_u32..), |json, (text, index)| {
                json.key(text);
                json.list([f64::NAN, 1.5, 1e300, f64::from(index)], |json, number| {
                    json.float(number);
                    Ok(())
                })
            });
        assert_eq!(written, Ok(()));
        let read: serde_json::Value = serde_json::from_str(&json.into_string()).unwrap();
        for (index, text) in texts.iter().enumerate() {
            assert_eq!(read[text], serde_json::json!([null, 1.5, 1e300, index]));
        }
        let mut json = Json::default();
        json.bytes(&[0, 0xab]);
        assert_eq!(json.into_string(), "\"00ab\"");
    }
}
