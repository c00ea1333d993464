//! HA-watch's page: plain HTML, CSS and ES modules in the binary. No build step and no outside assets.
//!
//! `app.js` begins; `state.js` keeps the live state as the stream tells it, `views/` draw it, `actions.js` asks for changes.

/// A file of the page.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// For the header `content-type`.
    pub content_type: &'static str,
    /// The file.
    pub bytes: &'static [u8],
}

/// To be sent with `/`: the page runs its own scripts only, and talks to nobody but who served it.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// The file at `path`, as an address has it: `/` or `/assets/...`.
#[must_use]
pub fn find(path: &str) -> Option<Asset> {
    let name = if path == "/" { "index.html" } else { path.strip_prefix("/assets/")? };
    let (name, bytes) = FILES.iter().find(|(known, _)| *known == name)?;
    let content_type = match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        _ => "image/svg+xml",
    };
    Some(Asset { content_type, bytes })
}

macro_rules! files {
    ($($name:literal),+ $(,)?) => { &[$(($name, include_bytes!($name))),+] };
}

const FILES: &[(&str, &[u8])] = files![
    "index.html",
    "icon.svg",
    "style.css",
    "views.css",
    "app.js",
    "api.js",
    "live.js",
    "state.js",
    "actions.js",
    "ui/announce.js",
    "ui/dialog.js",
    "ui/dom.js",
    "ui/format.js",
    "ui/icons.js",
    "ui/motion.js",
    "ui/parts.js",
    "ui/words.js",
    "views/alarms.js",
    "views/demo.js",
    "views/drawer.js",
    "views/election.js",
    "views/events.js",
    "views/feed.js",
    "views/incidents.js",
    "views/node.js",
    "views/nodecard.js",
    "views/overview.js",
    "views/policies.js",
    "views/policy.js",
    "views/settings.js",
    "views/timing.js",
    "views/vm.js",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn text(name: &str) -> &'static str {
        let asset = find(&format!("/assets/{name}")).unwrap_or_else(|| panic!("no {name}"));
        std::str::from_utf8(asset.bytes).expect("UTF-8")
    }

    #[test]
    fn the_page_is_found_and_nothing_else_is() {
        assert_eq!(find("/").expect("the page").content_type, "text/html; charset=utf-8");
        assert!(find("/assets/app.js").is_some());
        for other in ["", "/app.js", "/assets/", "/assets/mod.rs", "/assets/../mod.rs", "/assets"] {
            assert!(find(other).is_none(), "{other}");
        }
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let mut folders = above.map(|folder| folder.join("engine/src/watch/page"));
        let folder = folders.find(|folder| folder.exists()).expect("the folder of the page");
        for below in ["", "ui", "views"] {
            let files = std::fs::read_dir(folder.join(below)).expect("the folder of the page");
            for file in files.map(|file| file.expect("readable").path()) {
                let name = file.strip_prefix(&folder).expect("below").to_string_lossy();
                let served = find(&format!("/assets/{name}"));
                let Some(served) = served else {
                    assert!(file.is_dir() || name == "mod.rs", "{name} is not in FILES");
                    continue;
                };
                assert_eq!(served.bytes, std::fs::read(&file).expect("readable"), "{name}");
            }
        }
    }

    #[test]
    fn every_import_is_served() {
        for (name, _) in FILES.iter().filter(|(name, _)| name.ends_with(".js")) {
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            for import in text(name).split(" from '").skip(1).filter_map(|it| it.split_once("';")) {
                let wanted = match (import.0.strip_prefix("../"), import.0.strip_prefix("./")) {
                    (Some(above), _) => above.to_owned(),
                    (_, Some(beside)) if folder.is_empty() => beside.to_owned(),
                    (_, Some(beside)) => format!("{folder}/{beside}"),
                    _ => panic!("{name} imports {:?}: write a relative path", import.0),
                };
                assert!(find(&format!("/assets/{wanted}")).is_some(), "{name} imports {wanted}");
            }
        }
    }

    #[test]
    fn the_page_asks_nobody_else() {
        for (name, _) in FILES {
            // The name of SVG's namespace is no address.
            let text = text(name).replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "{name}");
            assert!(!text.contains(" style=\"") && !text.contains("innerHTML"), "{name}");
        }
    }
}
