//! The page, from the binary.

use crate::api::Refusal;
use crate::watch::page::{Asset, CONTENT_SECURITY_POLICY, find};
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

pub(super) async fn front(headers: HeaderMap) -> Result<Response, Refusal> {
    let mut response = show("/", &headers)?;
    let policy = header::HeaderValue::from_static(CONTENT_SECURITY_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

pub(super) async fn asset(
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    show(&format!("/assets/{path}"), &headers)
}

fn show(path: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let asset = find(path)
        .ok_or_else(|| Refusal::not_found(format!("the page has no {path}"), "see GET /"))?;
    let tag = tag(&asset);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let head = [(header::ETAG, tag.as_str()), (header::CACHE_CONTROL, "no-cache")];
    if known == Some(tag.as_str()) {
        return Ok((StatusCode::NOT_MODIFIED, head).into_response());
    }
    let kind = [
        (header::CONTENT_TYPE, asset.content_type),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    Ok((head, kind, asset.bytes).into_response())
}

/// Differs when the bytes do.
fn tag(asset: &Asset) -> String {
    format!("\"{:08x}-{:x}\"", crc32fast::hash(asset.bytes), asset.bytes.len())
}
