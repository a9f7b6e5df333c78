//! Checks the JSON text of embeds and format values without building it.
//!
//! Accepts what `serde_json` turns into a `yrs::Any`: RFC 8259, paired surrogate escapes, integers within
//! `i64` and finite numbers, nested at most `depth_max` deep.

use crate::engine::EngineError;

/// Checks one JSON text. Faults are reported at `offset`, where the text starts in the change.
pub(super) fn check(text: &str, offset: usize, depth_max: u32) -> Result<(), EngineError> {
    let mut scan = Scan {
        bytes: text.as_bytes(),
        at: 0,
        offset,
        depth_max,
    };
    scan.value(0)?;
    scan.skip_space();
    if scan.at == scan.bytes.len() {
        Ok(())
    } else {
        Err(scan.malformed())
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    offset: usize,
    depth_max: u32,
}

impl Scan<'_> {
    const fn malformed(&self) -> EngineError {
        EngineError::Malformed {
            what: "JSON",
            offset: self.offset + self.at,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, EngineError> {
        let byte = self.peek().ok_or_else(|| self.malformed())?;
        self.at += 1;
        Ok(byte)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Recursion is bounded by `depth_max`.
    fn value(&mut self, depth: u32) -> Result<(), EngineError> {
        self.skip_space();
        match self.next()? {
            b'n' => self.literal(b"ull"),
            b't' => self.literal(b"rue"),
            b'f' => self.literal(b"alse"),
            b'"' => self.string(),
            b'[' => self.items(depth, b']', |scan, depth| scan.value(depth)),
            b'{' => self.items(depth, b'}', |scan, depth| {
                scan.skip_space();
                if scan.next()? != b'"' {
                    return Err(scan.malformed());
                }
                scan.string()?;
                scan.skip_space();
                if scan.next()? != b':' {
                    return Err(scan.malformed());
                }
                scan.value(depth)
            }),
            b'-' | b'0'..=b'9' => {
                self.at -= 1;
                self.number()
            }
            _ => Err(self.malformed()),
        }
    }

    fn items(
        &mut self,
        depth: u32,
        close: u8,
        mut item: impl FnMut(&mut Self, u32) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let depth = depth + 1;
        if depth > self.depth_max {
            return Err(EngineError::LimitExceeded {
                what: "nesting of a value",
                value: u64::from(depth),
                max: u64::from(self.depth_max),
            });
        }
        self.skip_space();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self, depth)?;
            self.skip_space();
            match self.next()? {
                b',' => {}
                byte if byte == close => return Ok(()),
                _ => return Err(self.malformed()),
            }
        }
    }

    fn literal(&mut self, rest: &[u8]) -> Result<(), EngineError> {
        for &expected in rest {
            if self.next()? != expected {
                return Err(self.malformed());
            }
        }
        Ok(())
    }

    /// The rest of a string after its opening quote. The text is UTF-8 already.
    fn string(&mut self) -> Result<(), EngineError> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => match self.hex4()? {
                        0xD800..=0xDBFF => {
                            self.literal(b"\\u")?;
                            if !(0xDC00..=0xDFFF).contains(&self.hex4()?) {
                                return Err(self.malformed());
                            }
                        }
                        0xDC00..=0xDFFF => return Err(self.malformed()),
                        _ => {}
                    },
                    _ => return Err(self.malformed()),
                },
                0..0x20 => return Err(self.malformed()),
                _ => {}
            }
        }
    }

    fn hex4(&mut self) -> Result<u32, EngineError> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?)
                .to_digit(16)
                .ok_or_else(|| self.malformed())?;
            value = value << 4 | digit;
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<(), EngineError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return Err(self.malformed()),
        }
        let mut is_integer = true;
        if self.peek() == Some(b'.') {
            is_integer = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            is_integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self
            .bytes
            .get(start..self.at)
            .and_then(|bytes| std::str::from_utf8(bytes).ok());
        let text = text.ok_or_else(|| self.malformed())?;
        // Beyond u64 serde_json falls back to a float; between i64 and u64 yrs refuses the number.
        let is_in_range = match text.parse::<u64>() {
            Ok(value) if is_integer => i64::try_from(value).is_ok(),
            _ => text.parse::<f64>().is_ok_and(f64::is_finite),
        };
        if is_in_range {
            Ok(())
        } else {
            Err(self.malformed())
        }
    }

    fn skip_digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn digits(&mut self) -> Result<(), EngineError> {
        let start = self.at;
        self.skip_digits();
        if self.at > start {
            Ok(())
        } else {
            Err(self.malformed())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The judge is what yrs itself calls.
    fn yrs_reads(text: &str) -> bool {
        ::yrs::Any::from_json(text).is_ok()
    }

    #[test]
    fn accepts_exactly_what_yrs_reads() {
        let texts = [
            "null",
            "true",
            "false",
            "\"\"",
            "\"a\\n\\u00e9\\ud83d\\ude00\"",
            "0",
            "-0",
            "-12.5e-3",
            "1E+9",
            "[]",
            "{}",
            " [1, 2 , {\"a\" : [null]}] ",
            "9223372036854775807",
            "18446744073709551616",
            "-9223372036854775808",
            "-9223372036854775809",
            "1.7976931348623157e308",
            "0.1e-400",
            "{\"a\":1,\"a\":2}",
            "",
            "nul",
            "tru e",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "--1",
            "\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\\ud800\\u0041\"",
            "\"\u{1}\"",
            "[1,]",
            "[,1]",
            "{1:2}",
            "{\"a\"}",
            "{\"a\":}",
            "[1 2]",
            "1 2",
            "NaN",
            "1e999",
            "9223372036854775808",
            "18446744073709551615",
            "\u{feff}1",
            "[",
            "{",
            "]",
            "{\"a\":1,}",
        ];
        for text in texts {
            assert_eq!(check(text, 0, 64).is_ok(), yrs_reads(text), "{text:?}");
        }
    }

    #[test]
    fn refuses_nesting_beyond_the_limit() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert_eq!(check(&nested(64), 0, 64), Ok(()));
        let refused = check(&nested(65), 0, 64);
        assert_eq!(
            refused,
            Err(EngineError::LimitExceeded {
                what: "nesting of a value",
                value: 65,
                max: 64
            })
        );
        assert!(check(&"[{\"a\":".repeat(100_000), 0, 64).is_err());
    }
}
