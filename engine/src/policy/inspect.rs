//! Reads a module without running or compiling it: its structure, its manifest, its static limits.

use steadfast_sdk::manifest::{ABI, Manifest, SECTION};

use super::{Class, Failure, Kind, Limits, Stage};

const MAGIC: &[u8] = b"\0asm";
const CORE_1: &[u8] = &[1, 0, 0, 0];
const COMPONENT_1: &[u8] = &[0x0d, 0, 1, 0];
const CUSTOM: u8 = 0;
const CODE: u8 = 10;
const BUILD_SO: &str = "build a core module: cargo build --release --target wasm32-unknown-unknown";
const COPY_AGAIN: &str = "copy the file again, to a temporary name, and rename it into place";

/// One section of a module.
struct Section<'a> {
    id: u8,
    content: &'a [u8],
}

/// Reads the manifest, and refuses what is no intact core module.
pub(super) fn manifest(module: &[u8]) -> Result<Manifest, Failure> {
    let sections = sections(header(module)?, module.len())?;
    let mut found = sections.iter().filter_map(manifest_section);
    let json = found.next().ok_or_else(|| {
        refused(
            format!("there is no custom section {SECTION:?}"),
            "export the policy with steadfast_sdk::export_policy!, and do not strip custom sections",
        )
    })?;
    if found.next().is_some() {
        let remedy = "turn off the feature `module` of policies that this one uses as libraries";
        return Err(refused(format!("there are two custom sections {SECTION:?}"), remedy));
    }
    let manifest: Manifest = serde_json::from_slice(json)
        .map_err(|error| refused(format!("the manifest is not readable: {error}"), BUILD_SO))?;
    checked(manifest)
}

/// Checks limits that the bytes alone show.
pub(super) fn limits(module: &[u8], limits: &Limits) -> Result<(), Failure> {
    let (largest, most) = (largest_function(module)?, limits.function_bytes);
    if largest <= most {
        return Ok(());
    }
    let reason = format!("the largest function has {largest} bytes, allowed are {most}");
    let remedy = "split the function, or raise the limit function_bytes";
    Err(Failure::new(Stage::Limits, Class::Refused, reason, remedy))
}

/// Size of the largest function's body, in bytes.
pub(super) fn largest_function(module: &[u8]) -> Result<u32, Failure> {
    let sections = sections(header(module)?, module.len())?;
    let code = sections.iter().filter(|section| section.id == CODE);
    Ok(code.map(|it| largest_body(it.content).unwrap_or(u32::MAX)).max().unwrap_or(0))
}

/// The sections by name, with their sizes in bytes.
pub(super) fn section_sizes(module: &[u8]) -> Result<Vec<(String, usize)>, Failure> {
    let sections = sections(header(module)?, module.len())?;
    let named = |section: &Section<'_>| (section_name(section), section.content.len());
    Ok(sections.iter().map(named).collect())
}

fn section_name(section: &Section<'_>) -> String {
    const NAMES: [&str; 13] = [
        "custom",
        "type",
        "import",
        "function",
        "table",
        "memory",
        "global",
        "export",
        "start",
        "element",
        "code",
        "data",
        "data count",
    ];
    let custom = |section: &Section<'_>| {
        let (len, rest) = leb(section.content)?;
        let name = rest.get(..len as usize)?;
        Some(format!("custom {:?}", String::from_utf8_lossy(name)))
    };
    match section.id {
        CUSTOM => custom(section).unwrap_or_else(|| "custom".into()),
        id => {
            NAMES.get(usize::from(id)).map_or_else(|| format!("section {id}"), ToString::to_string)
        }
    }
}

/// The kinds that a (checked) manifest names.
pub(super) fn kinds(manifest: &Manifest) -> Vec<Kind> {
    Kind::ALL.into_iter().filter(|kind| manifest.kinds.iter().any(|it| it == kind.name())).collect()
}

fn checked(manifest: Manifest) -> Result<Manifest, Failure> {
    if manifest.abi != ABI {
        let reason = format!("the policy speaks ABI {}, this agent speaks ABI {ABI}", manifest.abi);
        return Err(refused(reason, "build it with an SDK of this agent's major version"));
    }
    if manifest.name.is_empty() || manifest.kinds.is_empty() {
        return Err(refused("the manifest names no policy or no kind", BUILD_SO));
    }
    match manifest.kinds.iter().find(|kind| Kind::named(kind).is_none()) {
        Some(kind) => Err(refused(
            format!(
                "the kind {kind:?} is unknown, this agent knows {:?}",
                Kind::ALL.map(Kind::name)
            ),
            "update the agent, or build the policy with an SDK of this agent's version",
        )),
        None => Ok(manifest),
    }
}

fn header(module: &[u8]) -> Result<&[u8], Failure> {
    let Some((head, rest)) = module.split_at_checked(8) else {
        let reason =
            format!("the file is truncated: {} bytes, a module has at least 8", module.len());
        return Err(refused(reason, COPY_AGAIN));
    };
    if head.starts_with(MAGIC) && head.ends_with(CORE_1) {
        return Ok(rest);
    }
    if head.starts_with(MAGIC) && head.ends_with(COMPONENT_1) {
        return Err(refused("it is a WebAssembly component, not a core module", BUILD_SO));
    }
    if head.trim_ascii_start().starts_with(b"(module") {
        let remedy = "translate it first: wat2wasm policy.wat -o policy.wasm";
        return Err(refused("it is WebAssembly text, not a binary module", remedy));
    }
    Err(refused(format!("it is no WebAssembly module: it begins with {head:02x?}"), BUILD_SO))
}

fn sections(mut rest: &[u8], total: usize) -> Result<Vec<Section<'_>>, Failure> {
    let mut sections = Vec::new();
    while let Some((&id, after)) = rest.split_first() {
        let at = total - rest.len();
        let content =
            leb(after).and_then(|(len, body)| Some((len, body, body.get(..len as usize)?)));
        let Some((len, body, content)) = content else {
            let reason = format!(
                "the file is truncated: the section {id} at byte {at} goes beyond its end at byte {total}"
            );
            return Err(refused(reason, COPY_AGAIN));
        };
        sections.push(Section { id, content });
        rest = &body[len as usize..];
    }
    Ok(sections)
}

fn manifest_section<'a>(section: &Section<'a>) -> Option<&'a [u8]> {
    let (len, rest) = leb(section.content).filter(|_| section.id == CUSTOM)?;
    let (name, content) = rest.split_at_checked(len as usize)?;
    (name == SECTION.as_bytes()).then_some(content)
}

fn largest_body(code: &[u8]) -> Option<u32> {
    let (count, mut rest) = leb(code)?;
    let mut largest = 0;
    for _ in 0..count {
        let (len, body) = leb(rest)?;
        largest = largest.max(len);
        rest = body.get(len as usize..)?;
    }
    Some(largest)
}

/// An unsigned LEB128 number of 32 bits, and what follows it.
fn leb(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((u32::try_from(value).ok()?, &bytes[at + 1..]));
        }
    }
    None
}

fn refused(reason: impl Into<String>, remedy: impl Into<String>) -> Failure {
    Failure::refused(Stage::Manifest, reason, remedy)
}
