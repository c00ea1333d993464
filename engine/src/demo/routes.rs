//! What the page's buttons ask for. Served beside watch's API, on loopback only.

use super::{Deed, Demo, DemoReport};
use crate::api::Refusal;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use std::sync::{Arc, Weak};

/// Not its owner: whoever asks must not keep it alive.
type Shared = State<Weak<Demo>>;
type Answer = Result<Json<DemoReport>, Refusal>;

/// `/v1/demo` and what is below. Has no fallback.
pub(super) fn router(demo: &Arc<Demo>) -> Router {
    Router::new()
        .route("/v1/demo", get(report))
        .route("/v1/demo/nodes/{node}/{word}", post(node))
        .route("/v1/demo/storage/{word}", post(storage))
        .route("/v1/demo/heal", post(heal))
        .with_state(Arc::downgrade(demo))
}

async fn report(State(demo): Shared) -> Answer {
    Ok(Json(alive(&demo)?.report()))
}

async fn node(State(demo): Shared, Path((node, word)): Path<(String, String)>) -> Answer {
    let deed = Deed::on(&word, &node);
    done(&demo, deed.ok_or_else(|| unknown(&word, "kill, boot, cut, join, stall, heal"))?)
}

async fn storage(State(demo): Shared, Path(word): Path<String>) -> Answer {
    match word.as_str() {
        "stall" => done(&demo, Deed::StallAll),
        "heal" => done(&demo, Deed::HealStorage),
        _ => Err(unknown(&word, "stall, heal")),
    }
}

async fn heal(State(demo): Shared) -> Answer {
    done(&demo, Deed::HealAll)
}

fn alive(demo: &Weak<Demo>) -> Result<Arc<Demo>, Refusal> {
    demo.upgrade().ok_or_else(|| Refusal::unavailable("the demonstration is over", "start another"))
}

fn unknown(word: &str, known: &str) -> Refusal {
    Refusal::not_found(format!("nothing called {word} can be done"), format!("try: {known}"))
}

/// What there is then.
fn done(demo: &Weak<Demo>, deed: Deed) -> Answer {
    let demo = alive(demo)?;
    let names = || demo.nodes().collect::<Vec<_>>().join(", ");
    demo.act(&deed).map_err(|error| {
        Refusal::not_found(format!("{error:#}"), format!("nodes are {}", names()))
    })?;
    Ok(Json(demo.report()))
}
