//! `GET /v1/events`: decisions as they are taken, as server-sent events.

use super::errors::Refusal;
use super::wire::DecisionReport;
use crate::driver::Agent;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt};

/// Something is said at least this often, so that whoever listens notices a node without power.
const BREATH: Duration = Duration::from_secs(1);

type Item = Result<Event, Infallible>;

pub(super) async fn stream(
    State(agent): State<Arc<Agent>>,
) -> Result<Sse<impl Stream<Item = Item>>, Refusal> {
    let decisions = agent.live()?.decisions.watch();
    let events = BroadcastStream::new(decisions).map(|received| Ok(event(received)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(BREATH)))
}

fn event(received: Result<Arc<DecisionReport>, BroadcastStreamRecvError>) -> Event {
    match received {
        Ok(report) => {
            // A question may be megabytes; `/v1/decisions` has it.
            let brief = report.without_question();
            let event = Event::default().id(brief.number.to_string());
            event.json_data(&brief).unwrap_or_else(|_| Event::default().comment("unprintable"))
        }
        Err(BroadcastStreamRecvError::Lagged(count)) => {
            Event::default().comment(format!("{count} events skipped: read faster"))
        }
    }
}
