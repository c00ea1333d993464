//! `steadfast top`: nodes, VMs and decisions, live in the terminal.

mod draw;
mod scene;
#[cfg(test)]
mod tests;

use super::client::{Client, Failure};
use super::live::{Live, News};
use super::{events, explain, say};
use anyhow::anyhow;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use scene::{Scene, Wish};
use std::io::IsTerminal;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Not drawn more often than this: 30 times a second.
const FRAME: Duration = Duration::from_millis(33);
/// How long until a lost agent is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// What the screen hears.
enum Heard {
    News(News),
    /// The agent is gone, in words.
    Lost(String),
    Terminal(Event),
}

/// Until `q` is pressed.
pub(super) async fn run(client: &Client, json: bool) -> Result<(), Failure> {
    if json {
        return print_states(client).await;
    }
    if !std::io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "top draws on a terminal; try `steadfast status`, or `steadfast top --json`".into(),
        ));
    }
    // Asked before the screen is taken, so that an agent that is not there is told in the usual words.
    let first = Live::open(client).await?;
    let (tell, mut heard) = mpsc::channel(64);
    let follower = tokio::spawn(follow(client.clone(), first, tell.clone()));
    std::thread::spawn(move || read_keys(&tell));
    let mut terminal = ratatui::init();
    let done = keep_drawing(client, &mut terminal, &mut heard).await;
    ratatui::restore();
    follower.abort();
    done
}

/// Every state on a line of its own.
async fn print_states(client: &Client) -> Result<(), Failure> {
    let mut live = Live::open(client).await?;
    loop {
        if let News::State(state) = live.next().await? {
            let line = serde_json::to_string(&state);
            say(&format!("{}\n", line.map_err(|error| Failure::Other(error.into()))?))?;
        }
    }
}

async fn follow(client: Client, first: Live, tell: mpsc::Sender<Heard>) {
    let mut stream = Ok(first);
    loop {
        let failure = match stream {
            Ok(mut live) => pass_on(&client, &mut live, &tell).await,
            Err(failure) => failure,
        };
        if tell.send(Heard::Lost(failure.to_string())).await.is_err() {
            return;
        }
        tokio::time::sleep(RETRY).await;
        stream = Live::open(&client).await;
    }
}

/// The past, then what comes, until the stream breaks.
async fn pass_on(client: &Client, live: &mut Live, tell: &mpsc::Sender<Heard>) -> Failure {
    match events::past(client, Scene::DECISIONS).await {
        Ok(past) => {
            for report in past {
                let _ = tell.send(Heard::News(News::Decision(Box::new(report)))).await;
            }
        }
        Err(failure) => return failure,
    }
    loop {
        match live.next().await {
            Ok(news) => {
                if tell.send(Heard::News(news)).await.is_err() {
                    return Failure::Unheard;
                }
            }
            Err(failure) => return failure,
        }
    }
}

fn read_keys(tell: &mpsc::Sender<Heard>) {
    while let Ok(event) = event::read() {
        if tell.blocking_send(Heard::Terminal(event)).is_err() {
            return;
        }
    }
}

async fn keep_drawing(
    client: &Client,
    terminal: &mut ratatui::DefaultTerminal,
    heard: &mut mpsc::Receiver<Heard>,
) -> Result<(), Failure> {
    let mut scene = Scene::default();
    let mut drawn = Instant::now() - FRAME;
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(drawn + FRAME), if scene.is_new => {
                terminal.draw(|frame| draw::draw(frame, &mut scene)).map_err(Failure::from_output)?;
                (drawn, scene.is_new) = (Instant::now(), false);
            }
            next = heard.recv() => {
                let Some(next) = next else { return Err(Failure::Other(anyhow!("no key can be read"))) };
                match hear(&mut scene, next) {
                    Wish::Nothing => {}
                    Wish::Quit => return Ok(()),
                    Wish::Explain(name) => {
                        let told = explain::ask(client, &name).await;
                        let text = told.map_or_else(|failure| failure.to_string(), |it| explain::tell(&it));
                        scene.show(&name, text);
                    }
                }
            }
        }
    }
}

fn hear(scene: &mut Scene, heard: Heard) -> Wish {
    match heard {
        Heard::News(News::State(state)) => scene.set(*state),
        Heard::News(News::Decision(report)) => scene.add(*report),
        Heard::Lost(why) => scene.lose(why),
        Heard::Terminal(Event::Key(key)) if key.kind != KeyEventKind::Release => {
            return scene.press(key);
        }
        Heard::Terminal(_) => scene.is_new = true,
    }
    Wish::Nothing
}
