//! HA-watch's page in a real browser: what operators do and see, how soon, and whether everybody can. Needs Debian's `chromium` and
//! `chromium-driver`, and `steadfast` built; `tests/run` gives them both.

#[path = "browser/chromium.rs"]
mod chromium;
#[path = "browser/demo.rs"]
mod demo;
#[path = "browser/everybody.rs"]
mod everybody;
#[path = "browser/pace.rs"]
mod pace;
#[path = "browser/pictures.rs"]
mod pictures;
#[path = "browser/stories.rs"]
mod stories;
#[path = "browser/world.rs"]
mod world;
