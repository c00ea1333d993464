//! Policies as Wasm modules, for tests of the agent's own host.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// A new folder with modules as `policies/build` builds them. Whoever asks for it removes it.
///
/// # Panics
/// They cannot be built, or the folder cannot be written.
#[must_use]
pub fn folder(names: &[&str]) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static BUILT: Once = Once::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    BUILT.call_once(|| {
        let built = Command::new(root.join("policies/build")).output();
        let built = built.expect("policies/build starts");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    });
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = format!("steadfast-modules-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(folder);
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    for name in names {
        let module = root.join(format!("policies/out/{name}.wasm"));
        std::fs::copy(module, folder.join(format!("{name}.wasm")))
            .expect("a module that was built");
    }
    folder
}
