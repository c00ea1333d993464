//! Typed parameters: the policy's own fields, set by the `.json` beside its `.wasm`.

/// One parameter, as the manifest lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Its name, as in the JSON.
    pub name: &'static str,
    /// Its Rust type.
    pub kind: &'static str,
    /// Its value when the JSON does not name it, as a Rust expression.
    pub default: &'static str,
    /// What it does.
    pub about: &'static str,
}

/// A policy's parameters as a list for people. [`parameters!`](crate::parameters) implements it; by hand
/// it may stay empty.
pub trait Parameters {
    /// All of them, in the order of their declaration.
    const PARAMETERS: &'static [Parameter] = &[];
}

/// Declares a policy whose fields are its parameters, each with its default.
///
/// Parameters that the policy does not know are refused, so that a typing error does not pass unseen.
///
/// ```
/// use steadfast_sdk::prelude::*;
///
/// parameters! {
///     /// Prefers quiet nodes.
///     pub struct Quiet {
///         /// Points lost for each CPU of load.
///         per_cpu: i64 = 100,
///     }
/// }
/// assert_eq!(Quiet::default().per_cpu, 100);
/// let quiet: Quiet = steadfast_sdk::serde_json::from_str(r#"{"per_cpu":7}"#).unwrap();
/// assert_eq!(quiet.per_cpu, 7);
/// ```
#[macro_export]
macro_rules! parameters {
    (
        $(#[$meta:meta])*
        $visible:vis struct $policy:ident {
            $( $(#[doc = $about:literal])* $name:ident : $kind:ty = $default:expr ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, $crate::serde::Deserialize)]
        #[serde(crate = "steadfast_sdk::serde", default, deny_unknown_fields)]
        $visible struct $policy {
            $( $(#[doc = $about])* pub $name: $kind, )*
        }

        impl ::core::default::Default for $policy {
            fn default() -> Self {
                Self { $( $name: $default, )* }
            }
        }

        impl $crate::params::Parameters for $policy {
            const PARAMETERS: &'static [$crate::params::Parameter] = &[
                $( $crate::params::Parameter {
                    name: ::core::stringify!($name),
                    kind: ::core::stringify!($kind),
                    default: ::core::stringify!($default),
                    about: ::core::concat!($($about,)* ""),
                }, )*
            ];
        }
    };
}
