//! Panics that are results, and say nothing.

use std::cell::RefCell;
use std::panic::{self, UnwindSafe};
use std::sync::Once;

thread_local! {
    /// What the last panic said, while somebody wants to know.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs it; a panic is what it says.
///
/// # Errors
///
/// What the panic said, and where.
pub(crate) fn catch<T>(run: impl FnOnce() -> T + UnwindSafe) -> Result<T, String> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let is_caught = SAID.with_borrow_mut(|said| {
                let is_caught = said.is_some();
                if is_caught {
                    *said = Some(panic.to_string());
                }
                is_caught
            });
            if !is_caught {
                before(panic);
            }
        }));
    });
    SAID.set(Some(String::new()));
    let result = panic::catch_unwind(run);
    let said = SAID.take();
    result.map_err(|_| said.unwrap_or_default())
}
