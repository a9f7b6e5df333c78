//! From a struct to its implementation.

use std::collections::BTreeMap;

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Fields, Generics, Index, LitInt, Member, Path, Type};

/// A field with what it is known by.
struct Field {
    tag: u32,
    member: Member,
    ty: Type,
}

/// The implementation for a struct, with paths that begin with `krate`.
pub(crate) fn expand(input: TokenStream, krate: &str) -> syn::Result<TokenStream> {
    let input: DeriveInput = syn::parse2(input)?;
    let fields = fields(&input)?;
    let krate = named_crate(&input)?.map_or_else(
        || {
            let krate = Ident::new(krate, Span::call_site());
            quote!(::#krate)
        },
        |path| quote!(#path),
    );
    Ok(implementation(&input, &fields, &krate))
}

fn implementation(input: &DeriveInput, fields: &[Field], krate: &TokenStream) -> TokenStream {
    let name = &input.ident;
    let generics = bounded(input, fields, krate);
    let (parameters, arguments, conditions) = generics.split_for_impl();
    let merge = quote!(#krate::mergeable);
    // At the field's type, where the compiler points if that is not mergeable.
    let each = |body: &dyn Fn(&Member, u32, &TokenStream) -> TokenStream| {
        let bodies = fields.iter().map(|Field { tag, member, ty }| {
            let of = quote_spanned!(ty.span()=> <#ty as #merge::Mergeable>);
            body(member, *tag, &of)
        });
        quote!(#(#bodies)*)
    };
    let commit = each(
        &|member, tag, of| quote!(out.field(#tag, |out| #of::commit(&self.#member, clock, out));),
    );
    let discard = each(&|member, _, of| quote!(#of::discard(&mut self.#member);));
    let apply = each(&|member, tag, _| quote!(#tag => field.apply(&mut self.#member)?,));
    let diff = each(
        &|member, tag, of| quote!(out.field(#tag, |out| #of::diff(&self.#member, since, out));),
    );
    let inverse = each(&|member, tag, _| quote!(#tag => field.inverse(&self.#member, out)?,));
    let revert = each(&|member, tag, _| quote!(#tag => field.revert(&mut self.#member)?,));
    let copy = each(&|member, _, of| quote!(#of::copy_from(&mut self.#member, &other.#member);));
    let compact = each(&|member, _, of| quote!(#of::compact(&mut self.#member, horizon);));
    let digest = each(
        &|member, tag, _| quote!(sum = sum.wrapping_add(#merge::field_digest(#tag, &self.#member));),
    );
    let empty = each(&|member, _, of| quote!(&& #of::is_empty(&self.#member)));
    let waiting = each(&|member, _, of| quote!(|| #of::is_waiting(&self.#member)));
    let failure = quote!(::core::result::Result<(), #krate::engine::EngineError>);
    quote! {
        #[automatically_derived]
        impl #parameters #merge::Mergeable for #name #arguments #conditions {
            const KIND: #merge::Kind = #merge::Kind::Struct;

            fn commit(&self, clock: &#merge::Clock, out: &mut #merge::DeltaWriter) {
                let _ = clock;
                out.node(Self::KIND, |out| {
                    let _ = &out;
                    #commit
                });
            }

            fn discard(&mut self) {
                #discard
            }

            fn apply(
                &mut self,
                delta: &mut #merge::DeltaReader<'_>,
            ) -> ::core::result::Result<bool, #krate::engine::EngineError> {
                let mut node = delta.node(Self::KIND)?;
                let mut changed = false;
                while !node.is_at_end() {
                    let field = node.field()?;
                    changed |= match field.tag() {
                        #apply
                        _ => field.keep()?,
                    };
                }
                ::core::result::Result::Ok(changed)
            }

            fn diff(&self, since: &#merge::VersionVector, out: &mut #merge::DeltaWriter) {
                let _ = since;
                out.node(Self::KIND, |out| {
                    let _ = &out;
                    #diff
                });
            }

            fn inverse(
                &self,
                change: &mut #merge::DeltaReader<'_>,
                out: &mut #merge::DeltaWriter,
            ) -> #failure {
                let mut node = change.node(Self::KIND)?;
                out.try_node(Self::KIND, |out| {
                    let _ = &out;
                    while !node.is_at_end() {
                        let field = node.field()?;
                        match field.tag() {
                            #inverse
                            _ => {}
                        }
                    }
                    ::core::result::Result::Ok(())
                })
            }

            fn revert(&mut self, inverse: &mut #merge::DeltaReader<'_>) -> #failure {
                let mut node = inverse.node(Self::KIND)?;
                while !node.is_at_end() {
                    let field = node.field()?;
                    match field.tag() {
                        #revert
                        _ => {}
                    }
                }
                ::core::result::Result::Ok(())
            }

            fn copy_from(&mut self, other: &Self) {
                let _ = other;
                #copy
            }

            fn compact(&mut self, horizon: &#merge::VersionVector) {
                let _ = horizon;
                #compact
            }

            fn digest(&self) -> u64 {
                let mut sum = 0_u64;
                #digest
                sum
            }

            fn is_empty(&self) -> bool {
                true #empty
            }

            fn is_waiting(&self) -> bool {
                false #waiting
            }
        }
    }
}

/// The fields in ascending order of their tags, which is how they are written.
fn fields(input: &DeriveInput) -> syn::Result<Vec<Field>> {
    let data = match &input.data {
        Data::Struct(data) => data,
        Data::Enum(data) => {
            return Err(syn::Error::new(
                data.enum_token.span,
                "an enum does not merge: which variant would two concurrent writes make? Put it into a `Register`, \
                 where the last one wins, or make a struct with a field for each variant",
            ));
        }
        Data::Union(data) => {
            return Err(syn::Error::new(
                data.union_token.span,
                "a union does not merge: make it a struct",
            ));
        }
    };
    let mut by_tag: BTreeMap<u32, Field> = BTreeMap::new();
    for (position, field) in data.fields.iter().enumerate() {
        let (member, default) = match (&field.ident, &data.fields) {
            (Some(ident), Fields::Named(_)) => (
                Member::Named(ident.clone()),
                tag_of(&ident.to_string().replace("r#", "")),
            ),
            _ => {
                let position = u32::try_from(position)
                    .map_err(|_| syn::Error::new(field.span(), "too many fields"))?;
                let index = Index {
                    index: position,
                    span: field.span(),
                };
                (Member::Unnamed(index), position)
            }
        };
        let tag = named_tag(field)?.unwrap_or(default);
        let field_span = field.span();
        let field = Field {
            tag,
            member,
            ty: field.ty.clone(),
        };
        if let Some(other) = by_tag.insert(tag, field) {
            let other = match other.member {
                Member::Named(ident) => ident.to_string(),
                Member::Unnamed(index) => index.index.to_string(),
            };
            return Err(syn::Error::new(
                field_span,
                format!(
                    "this field has the tag {tag}, and so has `{other}`: give one of them another with `#[merge(tag = N)]`"
                ),
            ));
        }
    }
    Ok(by_tag.into_values().collect())
}

/// The tag that a field's attribute gives it.
fn named_tag(field: &syn::Field) -> syn::Result<Option<u32>> {
    let mut tag = None;
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("merge")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("tag") {
                return Err(meta.error("fields know `#[merge(tag = N)]`"));
            }
            let number: LitInt = meta.value()?.parse()?;
            let number = number
                .base10_parse::<u32>()
                .map_err(|_| syn::Error::new(number.span(), "a tag is a number below 2^32"))?;
            match tag.replace(number) {
                Some(_) => Err(meta.error("the field has a tag already")),
                None => Ok(()),
            }
        })?;
    }
    Ok(tag)
}

/// The crate that the struct's attribute names.
fn named_crate(input: &DeriveInput) -> syn::Result<Option<Path>> {
    let mut krate = None;
    for attribute in input.attrs.iter().filter(|a| a.path().is_ident("merge")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("structs know `#[merge(crate = path)]`"));
            }
            krate = Some(meta.value()?.call(Path::parse_mod_style)?);
            Ok(())
        })?;
    }
    Ok(krate)
}

/// The struct's generics, with what an implementation needs of them.
fn bounded(input: &DeriveInput, fields: &[Field], krate: &TokenStream) -> Generics {
    let mut generics = input.generics.clone();
    let parameters: Vec<Ident> = generics.type_params().map(|p| p.ident.clone()).collect();
    if parameters.is_empty() {
        return generics;
    }
    let name = &input.ident;
    let (_, arguments, _) = input.generics.split_for_impl();
    let itself = quote!(#name #arguments: ::core::default::Default + ::core::clone::Clone + ::core::marker::Send + 'static);
    let conditions = generics.make_where_clause();
    conditions.predicates.push(syn::parse_quote!(#itself));
    for Field { ty, .. } in fields {
        if mentions(&quote!(#ty), &parameters) {
            let condition = syn::parse_quote!(#ty: #krate::mergeable::Mergeable);
            conditions.predicates.push(condition);
        }
    }
    generics
}

fn mentions(tokens: &TokenStream, parameters: &[Ident]) -> bool {
    tokens.clone().into_iter().any(|token| match token {
        TokenTree::Ident(ident) => parameters.contains(&ident),
        TokenTree::Group(group) => mentions(&group.stream(), parameters),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

/// The tag of a field by its name: FNV-1a (Fowler, Noll, Vo), 32 bits. Part of the format: never to be changed.
fn tag_of(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(input: TokenStream) -> String {
        expand(input, "sync_core").unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_merge_is_refused_with_a_way_out() {
        let message = refusal(quote!(
            enum Shape {
                Circle,
                Square,
            }
        ));
        assert!(message.contains("`Register`"), "{message}");
        let message = refusal(quote!(union Bits { a: u32, b: f32 }));
        assert!(message.contains("make it a struct"), "{message}");
    }

    #[test]
    fn two_fields_with_one_tag_are_refused_by_name() {
        let message = refusal(quote! {
            struct Card {
                title: Register<String>,
                #[merge(tag = 7)]
                votes: Counter,
                #[merge(tag = 7)]
                done: Register<bool>,
            }
        });
        assert!(
            message.contains("tag 7") && message.contains("`votes`"),
            "{message}"
        );
        // Also a given one that is another's by default.
        let message = refusal(quote! {
            struct Card {
                a: Counter,
                #[merge(tag = 0xe40c292c)]
                b: Counter,
            }
        });
        assert!(message.contains("`a`"), "{message}");
        let message = refusal(quote!(
            struct Pair(Counter, #[merge(tag = 0)] Counter);
        ));
        assert!(message.contains("`0`"), "{message}");
    }

    #[test]
    fn attributes_that_are_not_known_are_refused() {
        for (input, expected) in [
            (
                quote!(
                    struct A {
                        #[merge(tga = 1)]
                        a: Counter,
                    }
                ),
                "#[merge(tag = N)]",
            ),
            (
                quote!(
                    struct A {
                        #[merge(tag = 4294967296)]
                        a: Counter,
                    }
                ),
                "below 2^32",
            ),
            (
                quote!(
                    struct A {
                        #[merge(tag = 1, tag = 2)]
                        a: Counter,
                    }
                ),
                "already",
            ),
            (
                quote!(
                    #[merge(tag = 1)]
                    struct A {
                        a: Counter,
                    }
                ),
                "#[merge(crate = path)]",
            ),
        ] {
            let message = refusal(input);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn tags_of_names_are_pinned() {
        assert_eq!(tag_of(""), 0x811c_9dc5);
        assert_eq!(tag_of("a"), 0xe40c_292c);
        assert_eq!(tag_of("foobar"), 0xbf9c_f968);
    }
}
