//! The cluster's own authority and its nodes' certificates: agents know each other by them, over TLS both ways.
//!
//! Every member keeps the authority's key, as it keeps corosync's: whoever is root on a member can do everything anyway, and any member
//! may let the next one in.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use std::net::IpAddr;

/// Folder of keys.
pub(crate) const AUTHORITY: &str = "/etc/steadfast/pki/ca.crt";
pub(crate) const AUTHORITY_KEY: &str = "/etc/steadfast/pki/ca.key";
pub(crate) const NODE: &str = "/etc/steadfast/pki/node.crt";
pub(crate) const NODE_KEY: &str = "/etc/steadfast/pki/node.key";
/// A name in the certificate of each member: what `[[api.user]]` lets in.
pub(crate) const MEMBER: &str = "member.steadfast";

/// A key, as PEM.
pub(crate) fn new_key() -> Result<String> {
    Ok(KeyPair::generate().context("no key")?.serialize_pem())
}

/// The authority is its name and its key: the same certificate can be made again.
fn authority(cluster: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new()).context("no certificate")?;
    params.distinguished_name.push(DnType::CommonName, format!("steadfast cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2060, 1, 1));
    Ok(params)
}

/// The authority's certificate, as PEM.
pub(crate) fn authority_certificate(cluster: &str, key: &str) -> Result<String> {
    let key = KeyPair::from_pem(key).with_context(|| format!("{AUTHORITY_KEY} is damaged"))?;
    let made = authority(cluster)?.self_signed(&key);
    Ok(made.context("the authority cannot sign itself")?.pem())
}

/// A member's certificate, as PEM: for its name, for all members, and for its addresses.
pub(crate) fn member_certificate(
    cluster: &str,
    authority_key: &str,
    key: &str,
    (name, addresses): (&str, &[IpAddr]),
) -> Result<String> {
    let issuer = KeyPair::from_pem(authority_key);
    let issuer = issuer.with_context(|| format!("{AUTHORITY_KEY} is damaged"))?;
    let issuer = Issuer::new(authority(cluster)?, issuer);
    let key = KeyPair::from_pem(key).context("the node's key is damaged")?;
    let names = vec![name.to_owned(), MEMBER.to_owned()];
    let mut params = CertificateParams::new(names).context("no certificate")?;
    params.subject_alt_names.extend(addresses.iter().map(|at| SanType::IpAddress(*at)));
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2050, 1, 1));
    Ok(params.signed_by(&key, &issuer).context("the authority cannot sign")?.pem())
}
