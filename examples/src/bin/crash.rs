//! Kills a server and its clients at random moments, again and again, and looks for anything that was lost.
//!
//! `crash [--rounds 10] [--seed 1]` starts real processes of itself: a server on a directory, and clients that edit one
//! document, each with a store on disk. Every round one of them is killed with SIGKILL (or the server's directory is put
//! back to an older copy) and started again. In the end nothing that an edit returned from may be missing anywhere, and
//! every change must be in the server's log once.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to its user"
)]

use std::process::ExitCode;

use sync_examples::crash;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["server", directory, address] => crash::run_server(directory, address),
        ["client", address, store, name, purpose] => {
            crash::run_client(address, store, name, *purpose == "finish")
        }
        options => crash::Plan::parse(options).and_then(|plan| {
            let report = crash::run(&plan)?;
            println!("{report}");
            if report.is_clean() {
                Ok(())
            } else {
                Err("something was lost or doubled".into())
            }
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crash: {error}");
            ExitCode::FAILURE
        }
    }
}
