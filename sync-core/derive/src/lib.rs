//! `#[derive(Mergeable)]`: an application's own struct as a document, or as a part of one.
//!
//! Use it from `sync_core::mergeable` or `sync_client`, which re-export it and say what it does.

mod expand;

use proc_macro::TokenStream;

/// Implements `Mergeable` for a struct whose fields are `Mergeable`.
///
/// The struct derives or implements `Default` and `Clone` as well. On the wire a field is known by its *tag*: by default a
/// hash of its name, so that fields can be reordered, added and removed freely. A field that is renamed keeps its
/// tag by `#[merge(tag = N)]`; the documentation of `sync_core::mergeable` has the number of a name. Fields of tuple
/// structs are known by their position. Two fields with one tag are refused when they are compiled.
///
/// `#[merge(crate = path)]` on the struct names the crate to take the trait from, if it is not the one that the derive was
/// taken from.
#[proc_macro_derive(Mergeable, attributes(merge))]
pub fn derive_for_core(input: TokenStream) -> TokenStream {
    expand::expand(input.into(), "sync_core")
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

/// As `Mergeable`, for those who depend on `sync-client` alone. It re-exports this as `Mergeable`.
#[proc_macro_derive(ClientMergeable, attributes(merge))]
pub fn derive_for_client(input: TokenStream) -> TokenStream {
    expand::expand(input.into(), "sync_client")
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
