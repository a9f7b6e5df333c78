//! The example's own engine passes the suite that the library's engines pass.

use sync_core::engine::suite::{Probe, Suite};
use sync_core::rng::Rng;
use sync_examples::guests::{Book, Guests};

struct GuestsProbe;

impl Probe for GuestsProbe {
    type Engine = Guests;

    fn engine() -> Guests {
        Guests
    }

    fn edit(book: &mut Book, random: &mut Rng) {
        book.write(&format!("guest {}", random.next_u64() % 30));
    }

    fn add(book: &mut Book, number: u64) {
        book.write(&number.to_string());
    }

    fn has(book: &Book, number: u64) -> bool {
        book.has(&number.to_string())
    }

    fn content(book: &Book) -> String {
        book.names().collect::<Vec<_>>().join(", ")
    }
}

#[test]
fn the_engine_passes_the_suite() {
    Suite::<GuestsProbe>::new().run();
}
