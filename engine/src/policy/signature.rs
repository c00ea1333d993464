//! Signatures in minisign's format, where the configuration names keys: `rack-aware.wasm.minisig` beside
//! `rack-aware.wasm`, and the same for the parameters.

use std::fmt;
use std::path::{Path, PathBuf};

use minisign_verify::{PublicKey, Signature};

use super::{Failure, Stage};

const REMEDY: &str =
    "sign it: minisign -Sm FILE, with a secret key whose public key policies.signatures names";

/// A public key that may sign policies.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    words: String,
    key: PublicKey,
}

impl Key {
    /// Reads the key's one line of base64, as in minisign.pub.
    ///
    /// # Errors
    /// It is no such line.
    pub fn parse(line: &str) -> Result<Self, String> {
        let words = line.trim().to_string();
        match PublicKey::from_base64(&words) {
            Ok(key) => Ok(Self { words, key }),
            Err(error) => Err(format!("{words:?} is no public key of minisign: {error}")),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// Where the signature of a file lies.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}

/// Whether one of the keys has signed the bytes. Without keys everything is signed.
pub(super) fn check(
    keys: &[Key],
    name: &str,
    bytes: &[u8],
    signature: Option<&str>,
) -> Result<(), Failure> {
    if keys.is_empty() {
        return Ok(());
    }
    let refused = |reason: String| Err(Failure::refused(Stage::Signature, reason, REMEDY));
    let Some(text) = signature else {
        return refused(format!("{name} has no signature: there is no {name}.minisig"));
    };
    let signature = match Signature::decode(text) {
        Ok(signature) => signature,
        Err(error) => return refused(format!("{name}.minisig is no signature: {error}")),
    };
    // Prehashed signatures only: what minisign has written since 2015.
    if keys.iter().any(|key| key.key.verify(bytes, &signature, false).is_ok()) {
        return Ok(());
    }
    let trusted = keys.len();
    refused(format!("{name} was signed by none of the {trusted} keys, or was changed since"))
}
