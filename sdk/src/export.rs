//! `export_policy!`: the exports and the manifest of a module.

/// Makes a crate a policy module: writes the ABI's exports and the manifest.
///
/// The type needs `Default`, serde's `Deserialize` and
/// [`Parameters`](crate::params::Parameters) (all three by [`parameters!`](crate::parameters)) and the traits
/// that are named. Natively the macro only checks this, so that a policy is also an ordinary library.
///
/// ```
/// use steadfast_sdk::prelude::*;
/// # parameters! { pub struct Calm {} }
/// # impl NodePriority for Calm { fn priority(&self, _: &NodeFacts) -> Score { Score::new() } }
/// # impl Risk for Calm { fn risk(&self, _: &NodeFacts, _: &[Reading]) -> Score { Score::new() } }
/// export_policy! { Calm: NodePriority + Risk, name = "calm", about = "Nothing ever matters." }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export_policy {
    (
        $policy:ty: $first:ident $(+ $kind:ident)*,
        name = $name:literal,
        about = $about:literal
        $(, feature = $feature:literal)? $(,)?
    ) => {
        /// What this policy says of itself to the host.
        pub const MANIFEST: $crate::manifest::Source = $crate::manifest::Source {
            name: $name,
            version: ::core::env!("CARGO_PKG_VERSION"),
            about: $about,
            kinds: &[$crate::__kind!($first) $(, $crate::__kind!($kind))*],
            parameters: <$policy as $crate::params::Parameters>::PARAMETERS,
        };

        const _: () = {
            $crate::__implements!($first, $policy);
            $($crate::__implements!($kind, $policy);)*
        };

        #[cfg(not(target_arch = "wasm32"))]
        impl $crate::run::Policy for $policy {
            const KINDS: &'static [&'static str] = MANIFEST.kinds;

            fn answer(&self, kind: &str, input: &[u8]) -> Option<$crate::run::Bytes> {
                $crate::__answer!($first, self, kind, input);
                $($crate::__answer!($kind, self, kind, input);)*
                None
            }
        }

        #[allow(unsafe_code)]
        #[cfg(all(target_arch = "wasm32" $(, feature = $feature)?))]
        const _: () = {
            const LEN: usize = MANIFEST.len();
            #[unsafe(link_section = "steadfast:manifest")]
            #[allow(dead_code)]
            static SECTION: [u8; LEN] = MANIFEST.json::<LEN>();

            static POLICY: $crate::guest::Slot<$policy> = $crate::guest::Slot::new();

            #[unsafe(no_mangle)]
            extern "C" fn steadfast_policy_abi_1() {}

            #[unsafe(no_mangle)]
            extern "C" fn steadfast_alloc(len: usize) -> *mut u8 {
                $crate::guest::alloc(len)
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn steadfast_init(ptr: *mut u8, len: usize) -> u64 {
                // SAFETY: the host calls with what `steadfast_alloc` returned.
                unsafe { POLICY.init(ptr, len) }
            }

            $crate::__export!($first, $policy);
            $($crate::__export!($kind, $policy);)*
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __kind {
    (NodePriority) => {
        "node_priority"
    };
    (Placement) => {
        "placement"
    };
    (Risk) => {
        "risk"
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __implements {
    ($kind:ident, $policy:ty) => {{
        const fn implements<P: $crate::kinds::$kind>() {}
        implements::<$policy>();
    }};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __answer {
    (NodePriority, $($rest:tt)+) => {
        $crate::__answer!("node_priority", NodePriority, node_priority, $($rest)+);
    };
    (Placement, $($rest:tt)+) => {
        $crate::__answer!("placement", Placement, placement, $($rest)+);
    };
    (Risk, $($rest:tt)+) => {
        $crate::__answer!("risk", Risk, assess, $($rest)+);
    };
    ($name:literal, $trait:ident, $method:ident, $policy:ident, $kind:ident, $input:ident) => {
        if $kind == $name {
            let ask = |question: &_| $crate::kinds::$trait::$method($policy, question);
            return Some($crate::abi::answer($input, ask));
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    (NodePriority, $policy:ty) => {
        $crate::__export!(NodePriority, node_priority, steadfast_node_priority, $policy);
    };
    (Placement, $policy:ty) => {
        $crate::__export!(Placement, placement, steadfast_placement, $policy);
    };
    (Risk, $policy:ty) => {
        $crate::__export!(Risk, assess, steadfast_risk, $policy);
    };
    ($trait:ident, $method:ident, $export:ident, $policy:ty) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $export(ptr: *mut u8, len: usize) -> u64 {
            // SAFETY: the host calls with what `steadfast_alloc` returned.
            unsafe { POLICY.answer(ptr, len, <$policy as $crate::kinds::$trait>::$method) }
        }
    };
}
