//! Routes of policies: who decides, rollback, and what a policy would say.

use super::change::{blocking, parse};
use super::errors::Refusal;
use super::wire::{Evaluate, RollBack, RolledBack};
use crate::driver::{Agent, Live};
use crate::policy::{
    Evaluation, Kind, KindStatus, NotEvaluated, Peer, PoliciesStatus, State as Is,
};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use std::sync::Arc;
use steadfast_core::ids::Digest;
use steadfast_core::snapshot::{NodeView, Snapshot};
use steadfast_core::time::Millis;

/// A node whose last beat is older is not asked whether it agrees.
const LIVE: Millis = Millis(5_000);

type Shared = State<Arc<Agent>>;
type Answer<T> = Result<Json<T>, Refusal>;

pub(super) async fn all(State(agent): Shared) -> Answer<PoliciesStatus> {
    let (live, snapshot) = (agent.live()?, agent.snapshot().await?);
    Ok(Json(status(&live, &snapshot)))
}

pub(super) async fn one(State(agent): Shared, Path(name): Path<String>) -> Answer<KindStatus> {
    let kind = find_kind(&name)?;
    let (live, snapshot) = (agent.live()?, agent.snapshot().await?);
    let found = status(&live, &snapshot).kinds.into_iter().find(|status| status.kind == kind);
    found
        .map(Json)
        .ok_or_else(|| Refusal::not_found(format!("nothing is known of {kind}"), "report it"))
}

pub(super) async fn roll_back(
    State(agent): Shared,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<RolledBack> {
    let (kind, live) = (find_kind(&name)?, agent.live()?);
    let RollBack { digest } = parse(&body)?;
    let worker = Arc::clone(&live);
    if let Some(text) = digest {
        let Digest(digest) = text.clone().try_into().map_err(Refusal::malformed)?;
        let turn_away = move || {
            worker.policies.turn_away(kind, digest);
            Ok(())
        };
        blocking(turn_away).await?;
        return Ok(Json(rolled_back(&live, kind, Some(text))));
    }
    let from = blocking(move || Ok(worker.policies.roll_back(kind))).await?;
    let from = from.ok_or_else(|| {
        let why =
            format!("the agent's own policy decides {kind} already: there is nothing before it");
        Refusal::refused(why, format!("drop a policy for {kind} into the folder"))
    })?;
    Ok(Json(rolled_back(&live, kind, Some(from))))
}

pub(super) async fn undo_roll_back(
    State(agent): Shared,
    Path(name): Path<String>,
) -> Answer<RolledBack> {
    let (kind, live) = (find_kind(&name)?, agent.live()?);
    let worker = Arc::clone(&live);
    if !blocking(move || Ok(worker.policies.undo_roll_back(kind))).await? {
        let why = format!("nothing was rolled back for {kind}");
        return Err(Refusal::refused(why, "see `steadfast policy list`"));
    }
    Ok(Json(rolled_back(&live, kind, None)))
}

pub(super) async fn evaluate(
    State(agent): Shared,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<Evaluation> {
    let kind = find_kind(&name)?;
    let Evaluate { question, policy } = parse(&body)?;
    let live = agent.live()?;
    let ask = move || live.policies.evaluate(kind, &question, policy.as_deref()).map_err(refusal);
    blocking(ask).await.map(Json)
}

fn refusal(why: NotEvaluated) -> Refusal {
    match why {
        NotEvaluated::Question(..) => Refusal::refused(
            why.to_string(),
            "ask as `GET /v1/explain/ID` shows the question of a decision",
        ),
        NotEvaluated::Unknown { .. } => Refusal::not_found(
            why.to_string(),
            "name a policy or a file of the folder that is valid",
        ),
    }
}

fn rolled_back(live: &Live, kind: Kind, from: Option<String>) -> RolledBack {
    let status = live.policies.status();
    let mut policies = status.kinds.iter().filter(|it| it.kind == kind).flat_map(|it| &it.policies);
    let decides = policies.find(|policy| policy.deciding);
    let decides = decides.map_or_else(String::new, |policy| {
        format!("{} {} (generation {})", policy.name, policy.version, policy.generation)
    });
    RolledBack { kind, from, decides }
}

pub(super) fn find_kind(name: &str) -> Result<Kind, Refusal> {
    let known = || Kind::ALL.map(Kind::name).join(", ");
    Kind::named(&name.replace('-', "_")).ok_or_else(|| {
        Refusal::not_found(
            format!("no kind of policy is called {name:?}"),
            format!("the kinds are {}", known()),
        )
    })
}

/// What this node knows, with what the others hold by their beats.
pub(super) fn status(live: &Live, snapshot: &Snapshot) -> PoliciesStatus {
    let mut status = live.policies.status();
    for kind in &mut status.kinds {
        compare(kind, snapshot);
    }
    status
}

fn compare(status: &mut KindStatus, snapshot: &Snapshot) {
    status.peers = snapshot.nodes.iter().map(|node| peer(status.kind, node, snapshot)).collect();
    let own = snapshot.nodes.iter().find(|node| node.id == snapshot.node.id);
    if let (Kind::NodePriority, Some(own)) = (status.kind, own) {
        name_the_active(status, own.policy);
    }
    status.agreement = agreement(&status.peers);
}

fn peer(kind: Kind, node: &NodeView, snapshot: &Snapshot) -> Peer {
    let own = node.id == snapshot.node.id;
    let live = own || node.in_view && node.beat_age.is_some_and(|age| age < LIVE);
    let staged = match kind {
        Kind::NodePriority => node.policies.node_priority,
        Kind::Placement => node.policies.placement,
        Kind::Risk => node.policies.risk,
    };
    let active = if kind == Kind::NodePriority { node.policy } else { staged };
    let shown = |digest: Digest| match digest == Digest::default() {
        true => String::new(),
        false => digest.to_string(),
    };
    Peer { node: node.name.clone(), live, staged: shown(staged), active: shown(active) }
}

/// For node priority the nodes' agreement says who decides; what the folder names is staged until then.
fn name_the_active(status: &mut KindStatus, active: Digest) {
    let active = active.to_string();
    let known = status.policies.iter().any(|policy| policy.digest == active);
    for policy in &mut status.policies {
        let is_it = policy.digest == active;
        if policy.deciding && !is_it && policy.state == Is::Active {
            policy.state = Is::Staged;
        }
        if is_it && policy.state == Is::LastGood {
            policy.state = Is::Active;
        }
        // Without the one agreed on, the agent's own answers.
        policy.deciding = if known { is_it } else { policy.state == Is::BuiltIn };
    }
}

/// In words: who of the live nodes would use something else than most.
fn agreement(peers: &[Peer]) -> String {
    let live: Vec<&Peer> = peers.iter().filter(|peer| peer.live).collect();
    let count = |digest: &str| live.iter().filter(|peer| peer.active == digest).count();
    let Some(most) = live.iter().map(|peer| peer.active.as_str()).max_by_key(|it| count(it)) else {
        return "no live node".into();
    };
    let others: Vec<String> = live
        .iter()
        .filter(|peer| peer.active != most || peer.staged != most)
        .map(|peer| match (peer.active == most, peer.staged.as_str()) {
            (true, staged) => format!("{} stages {}", peer.node, brief(staged)),
            (false, _) => format!("{} uses {}", peer.node, brief(&peer.active)),
        })
        .collect();
    let agree = format!("{} of {} use {}", count(most), live.len(), brief(most));
    if others.is_empty() { agree } else { format!("{agree}; {}", others.join(", ")) }
}

fn brief(digest: &str) -> &str {
    if digest.is_empty() { "none yet" } else { digest.get(..8).unwrap_or(digest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(node: &str, staged: &str, active: &str) -> Peer {
        Peer { node: node.into(), live: true, staged: staged.into(), active: active.into() }
    }

    #[test]
    fn agreement_names_who_differs() {
        let same = [peer("n1", "aa", "aa"), peer("n2", "aa", "aa")];
        assert_eq!(agreement(&same), "2 of 2 use aa");
        let staging = [peer("n1", "bb", "aa"), peer("n2", "aa", "aa")];
        assert_eq!(agreement(&staging), "2 of 2 use aa; n1 stages bb");
        let strange = [peer("n1", "aa", "aa"), peer("n2", "aa", "aa"), peer("n3", "cc", "")];
        assert_eq!(agreement(&strange), "2 of 3 use aa; n3 uses none yet");
        let gone = [peer("n1", "aa", "aa"), Peer { live: false, ..peer("n2", "cc", "cc") }];
        assert_eq!(agreement(&gone), "1 of 1 use aa");
    }

    #[test]
    fn what_the_folder_names_is_staged_until_the_nodes_agree() {
        let digest = Digest::of(b"old");
        let policy = |digest: &Digest, state, deciding| crate::policy::PolicyStatus {
            digest: digest.to_string(),
            state,
            deciding,
            ..<_>::default()
        };
        let new = Digest::of(b"new");
        let mut status = KindStatus {
            policies: vec![
                policy(&Digest::of(b"own"), Is::BuiltIn, false),
                policy(&digest, Is::LastGood, false),
                policy(&new, Is::Active, true),
            ],
            ..<_>::default()
        };
        let shown = |status: &KindStatus| -> Vec<(Is, bool)> {
            status.policies.iter().map(|it| (it.state, it.deciding)).collect()
        };
        name_the_active(&mut status, digest);
        let staged = [(Is::BuiltIn, false), (Is::Active, true), (Is::Staged, false)];
        assert_eq!(shown(&status), staged);
        name_the_active(&mut status, Digest::default());
        assert_eq!(shown(&status)[0], (Is::BuiltIn, true), "nothing agreed: the agent's own");
    }
}
