//! What users may do with which documents, as the file says.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sync_server::{Access, AuthError, Authorizer, DocumentId, JwtClaims, User};

use crate::config::Level;

/// A rule as it stands in the file.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleText {
    documents: String,
    access: String,
    user: Option<String>,
    claim: Option<String>,
    value: Option<String>,
    create: Option<bool>,
}

/// Who may do what: the first rule that fits decides, and what is said for everybody where none does.
#[derive(Debug)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    otherwise: Access,
}

#[derive(Debug)]
struct Rule {
    documents: Vec<Part>,
    user: Option<String>,
    claim: Option<String>,
    value: Option<String>,
    access: Access,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// `*`: anything, or nothing.
    Any,
    /// `{user}`
    User,
    /// `{value}`: one that the claim has.
    Value,
}

impl Rules {
    /// # Errors
    /// What is wrong with which rule, from 1.
    pub(crate) fn new(texts: &[RuleText], otherwise: Access) -> Result<Self, String> {
        let rules = texts.iter().enumerate().map(|(at, text)| {
            Rule::new(text).map_err(|reason| format!("rule {}: {reason}", at + 1))
        });
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
            // Files do not change by themselves; tokens do, and then this is asked again.
            otherwise: otherwise.valid_for(Duration::MAX),
        })
    }

    fn access(&self, user: &User, document: &DocumentId) -> Access {
        let rule = self.rules.iter().find(|rule| rule.fits(user, document));
        rule.map_or(self.otherwise, |rule| rule.access)
    }
}

#[async_trait]
impl Authorizer for Rules {
    async fn authorize(&self, user: &User, document: &DocumentId) -> Result<Access, AuthError> {
        Ok(self.access(user, document))
    }
}

impl Rule {
    fn new(text: &RuleText) -> Result<Self, String> {
        let level = Level::from_str(&text.access)
            .map_err(|reason| format!("access is `{}`: {reason}", text.access))?;
        let documents = parts(&text.documents)?;
        if text.claim.is_none() && (documents.contains(&Part::Value) || text.value.is_some()) {
            return Err("a value needs the claim that it is of".to_owned());
        }
        Ok(Self {
            documents,
            user: text.user.clone(),
            claim: text.claim.clone(),
            value: text.value.clone(),
            access: level
                .access()
                .create(text.create.unwrap_or(true))
                .valid_for(Duration::MAX),
        })
    }

    fn fits(&self, user: &User, document: &DocumentId) -> bool {
        if self.user.as_deref().is_some_and(|name| *name != *user.id) {
            return false;
        }
        let Some(claim) = &self.claim else {
            return self.fits_document(&user.id, "", document);
        };
        user.claims::<JwtClaims>().is_some_and(|claims| {
            claims
                .texts(claim)
                .filter(|value| self.value.as_deref().is_none_or(|wanted| wanted == *value))
                .any(|value| self.fits_document(&user.id, value, document))
        })
    }

    fn fits_document(&self, user: &str, value: &str, document: &DocumentId) -> bool {
        // What is in a token stands for itself, and for one level: who is called `a/b` has nothing in `home/a/`.
        let is_one = |text: &str| !text.is_empty() && !text.contains('/');
        let mut pieces: Vec<Option<String>> = vec![Some(String::new())];
        for part in &self.documents {
            let text = match part {
                Part::Any => {
                    pieces.extend([None, Some(String::new())]);
                    continue;
                }
                Part::User if !is_one(user) => return false,
                Part::Value if !is_one(value) => return false,
                Part::Text(text) => text,
                Part::User => user,
                Part::Value => value,
            };
            if let Some(Some(last)) = pieces.last_mut() {
                last.push_str(text);
            }
        }
        matches(&pieces, document.as_str())
    }
}

/// Cuts a pattern into its parts.
fn parts(pattern: &str) -> Result<Vec<Part>, String> {
    if pattern.is_empty() {
        return Err("documents is empty".to_owned());
    }
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some(at) = rest.find(['*', '{', '}']) {
        let (text, special) = rest.split_at(at);
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
        let known = [
            ("*", Part::Any),
            ("{user}", Part::User),
            ("{value}", Part::Value),
        ];
        let found = known
            .into_iter()
            .find_map(|(name, part)| Some((part, special.strip_prefix(name)?)));
        let Some((part, left)) = found else {
            return Err(format!(
                "documents is `{pattern}`: braces are around `user` or `value`"
            ));
        };
        parts.push(part);
        rest = left;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// Whether a text is these, one behind the other; `None` is anything.
fn matches(pieces: &[Option<String>], text: &str) -> bool {
    match pieces {
        [] => text.is_empty(),
        [Some(first), rest @ ..] => text
            .strip_prefix(first.as_str())
            .is_some_and(|left| matches(rest, left)),
        [None] => true,
        [None, Some(last)] => text.ends_with(last.as_str()),
        // The first place does: what comes after has the more to choose from.
        [None, Some(next), rest @ ..] => text
            .split_once(next.as_str())
            .is_some_and(|(_, left)| matches(rest, left)),
        [None, rest @ ..] => matches(rest, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, user: &str, value: &str, document: &str) -> bool {
        let rule = Rule {
            documents: parts(pattern).expect("a pattern"),
            user: None,
            claim: None,
            value: None,
            access: Access::read(),
        };
        let document = DocumentId::new(document).expect("an id");
        rule.fits_document(user, value, &document)
    }

    #[test]
    fn patterns_fit_whole_ids() {
        for (pattern, document, fit) in [
            ("*", "anything/at all", true),
            ("team/*", "team/a/b", true),
            ("team/*", "team/", true),
            ("team/*", "team", false),
            ("team/*", "my/team/a", false),
            ("*.md", "a.md", true),
            ("*.md", "a.md.txt", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a**c", "abc", true),
            ("ab*ba", "aba", false),
            ("../*", "../x", true),
            ("x", "X", false),
        ] {
            assert_eq!(fits(pattern, "", "", document), fit, "{pattern} {document}");
        }
    }

    #[test]
    fn what_is_in_a_token_stands_for_itself_and_one_level() {
        for (user, document, fit) in [
            ("ada", "home/ada/notes", true),
            ("ada", "home/bob/notes", false),
            ("*", "home/bob/notes", false),
            ("*", "home/*/notes", true),
            ("a/b", "home/a/b/notes", false),
            ("", "home//notes", false),
        ] {
            assert_eq!(
                fits("home/{user}/*", user, "", document),
                fit,
                "{user} {document}"
            );
        }
        assert!(fits("team/{value}-{user}", "ada", "red", "team/red-ada"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for pattern in ["", "{team}/*", "a}", "{user"] {
            assert!(parts(pattern).is_err(), "{pattern}");
        }
    }
}
