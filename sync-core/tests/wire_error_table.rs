//! The table of errors in `docs/protocol.md` section 9 is the enum.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;

use sync_core::error::{Action, ErrorCode};

#[test]
fn the_error_table_of_the_protocol_equals_the_enum() {
    let table = rows("| code | name |").into_iter().map(|mut row| {
        let meaning = row.pop().unwrap();
        assert!(!meaning.is_empty(), "no meaning: {row:?}");
        row
    });
    let code = |code: &ErrorCode| {
        let retryable = if code.is_retryable() { "yes" } else { "no" };
        let action = format!("{:?}", code.action());
        vec![
            code.number().to_string(),
            code.name().to_owned(),
            retryable.to_owned(),
            action,
            code.close_code().to_string(),
        ]
    };
    assert_eq!(
        table.collect::<Vec<_>>(),
        ErrorCode::ALL.iter().map(code).collect::<Vec<_>>()
    );
}

#[test]
fn every_action_has_its_number_in_the_protocol() {
    let table: BTreeSet<_> = rows("| action | number |")
        .into_iter()
        .map(|row| (row[1].clone(), row[0].clone()))
        .collect();
    let actions = (0..=u8::MAX).filter_map(|number| {
        let action = Action::from_number(number)?;
        Some((number.to_string(), format!("{action:?}")))
    });
    assert_eq!(table, actions.collect());
}

#[test]
fn codes_and_names_are_unique_and_parse_back() {
    let numbers: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
    let names: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(
        (numbers.len(), names.len()),
        (ErrorCode::ALL.len(), ErrorCode::ALL.len())
    );
    for number in 0..=u16::MAX {
        assert_eq!(ErrorCode::from_number(number).number(), number);
    }
}

#[test]
fn exactly_the_codes_to_refuse_take_changes_out_of_an_outbox() {
    for code in ErrorCode::ALL {
        assert_eq!(code.is_final(), code.action() == Action::Refuse, "{code}");
    }
}

/// Cells of the table whose first line starts like this.
fn rows(header: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let text = std::fs::read_to_string(path).unwrap();
    let table = text
        .lines()
        .skip_while(|line| !line.starts_with(header))
        .skip(2);
    let rows: Vec<Vec<_>> = table
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect();
    assert!(!rows.is_empty(), "no table starts with {header}");
    rows
}
