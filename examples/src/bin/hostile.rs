//! A worker program with an engine that dies of what it is told to.

use sync_examples::hostile::engines;
use sync_server::worker_main_with;

fn main() {
    worker_main_with(engines);
}
