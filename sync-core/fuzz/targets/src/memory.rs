//! Counts what a target takes, by what it asks for and not by what it touches: four bytes that reserve 5 GB are a finding.

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Runs something that may hold at most so many bytes more than were held before, at any moment.
///
/// Counts all threads: whoever runs targets runs one at a time.
pub(crate) fn bounded<R>(bytes_max: usize, what: &str, run: impl FnOnce() -> R) -> R {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = run();
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(
        taken <= bytes_max,
        "{what} took {taken} bytes, {bytes_max} are allowed"
    );
    result
}
