//! `laws!`: the tests of the laws. Apart from them, since the macro must also be known where nothing is tested.

/// Writes the tests of the laws for a policy that is exported with [`export_policy!`](crate::export_policy).
///
/// ```
/// # use steadfast_sdk::prelude::*;
/// # parameters! { pub struct Calm {} }
/// # impl Risk for Calm { fn risk(&self, _: &NodeFacts, _: &[Reading]) -> Score { Score::new() } }
/// # export_policy! { Calm: Risk, name = "calm", about = "Nothing ever matters." }
/// laws!(Calm);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! laws {
    ($policy:ty) => {
        #[cfg(all(test, not(target_arch = "wasm32")))]
        mod laws {
            use super::*;
            use $crate::laws::{Trial, try_policy};

            #[test]
            fn every_question_has_a_sound_answer() {
                try_policy::<$policy>(Trial::Sound, $crate::__guard!());
            }

            #[test]
            fn the_same_question_has_the_same_answer() {
                try_policy::<$policy>(Trial::Deterministic, $crate::__guard!());
            }

            #[test]
            fn the_order_of_nodes_and_vms_means_nothing() {
                try_policy::<$policy>(Trial::Order, $crate::__guard!());
            }

            #[test]
            fn a_huge_cluster_has_a_sound_answer() {
                try_policy::<$policy>(Trial::Huge, $crate::__guard!());
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __guard {
    () => {{
        extern crate std;
        |call: &mut dyn FnMut()| {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
            caught.map_err(|panic| {
                let words = panic.downcast_ref::<std::string::String>().cloned();
                let short = || panic.downcast_ref::<&str>().map(|words| (*words).into());
                words.or_else(short).unwrap_or_default()
            })
        }
    }};
}
