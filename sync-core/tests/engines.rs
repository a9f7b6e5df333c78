//! Every engine of this crate passes the suite.

use sync_core::engine::suite::{OpaqueProbe, Suite, TypedProbe};

macro_rules! passes {
    ($name:ident, $probe:ty, $cases:literal) => {
        mod $name {
            use super::*;

            /// Scenario 1.
            #[test]
            fn replicas_with_the_same_changes_are_equal() {
                Suite::<$probe>::new().cases($cases).laws();
            }

            #[test]
            fn what_goes_in_comes_out() {
                Suite::<$probe>::new().cases($cases).changes();
            }

            /// Scenarios 76 and 77.
            #[test]
            fn undo_and_earlier_versions() {
                Suite::<$probe>::new().cases($cases).history();
            }
        }
    };
}

passes!(typed, TypedProbe, 300);
passes!(opaque, OpaqueProbe, 300);
#[cfg(feature = "yrs")]
passes!(yrs, sync_core::engine::suite::YrsProbe, 200);
#[cfg(feature = "loro")]
passes!(loro, sync_core::engine::suite::LoroProbe, 60);
#[cfg(feature = "automerge")]
passes!(automerge, sync_core::engine::suite::AutomergeProbe, 10);
