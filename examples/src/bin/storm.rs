//! Cuts thousands of clients at once, and drains the server under them: how long until all are back, and is anything lost?
//!
//! `storm [--clients 300] [--edits 100] [--drain 5] [--program PATH]`. The server is a process of its own: `sync-server` if its
//! path is given, else one made of the library. All connections are cut in the same moment, and then the server is told to
//! leave by SIGTERM while clients edit, and another one started in its place. It fails if anybody is told of an error that is
//! none of a reconnection, does not come back, or a change is missing or doubled in the server's log.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to its user"
)]

use std::process::ExitCode;

#[cfg(unix)]
fn main() -> ExitCode {
    use sync_examples::storm;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["serve", address, directory, drain] => storm::serve(address, directory, drain),
        options => storm::Plan::parse(options).and_then(|plan| {
            let report = storm::run(&plan)?;
            println!("{report}");
            report.check().map_err(Into::into)
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    eprintln!("storm: there is no SIGTERM on this system");
    ExitCode::FAILURE
}
