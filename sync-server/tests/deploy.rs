//! What is in `deploy` fits the program.
#![cfg(all(feature = "bin", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod program;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use program::run;

fn read(file: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy");
    fs::read_to_string(folder.join(file)).unwrap()
}

#[test]
fn every_variable_that_is_set_is_one_of_the_program() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    for file in ["sync-server.service", "Dockerfile"] {
        let text = read(file);
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        let variables: Vec<_> = words.filter(|word| word.starts_with("SYNC_")).collect();
        assert!(!variables.is_empty(), "{file}");
        for variable in variables {
            assert!(
                help.contains(&format!("[env: {variable}]")),
                "{file}: {variable}"
            );
        }
    }
}

#[test]
fn the_codes_after_which_it_is_not_started_again_are_documented() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    let unit = read("sync-server.service");
    let codes = unit
        .lines()
        .find_map(|line| line.strip_prefix("RestartPreventExitStatus="));
    for code in codes.unwrap().split(' ') {
        assert!(help.contains(&format!("\n  {code}  ")), "{code}: {help}");
    }
}

/// Where systemd is installed; elsewhere there is nobody to ask.
#[test]
fn systemd_takes_the_unit() {
    let folder = std::env::temp_dir().join(format!("sync-deploy-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let unit = folder.join("sync-server.service");
    let program = env!("CARGO_BIN_EXE_sync-server");
    fs::write(
        &unit,
        read("sync-server.service").replace("/usr/bin/sync-server", program),
    )
    .unwrap();
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&unit)
        .output();
    fs::remove_dir_all(&folder).unwrap();
    let Ok(verified) = verified else { return };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(
        verified.status.success() && !said.contains("sync-server.service:"),
        "{said}"
    );
}
