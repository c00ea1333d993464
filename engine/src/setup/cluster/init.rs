//! `steadfast cluster init`: the first node.

use super::super::change::{Act, Change};
use super::super::host::Host;
use super::super::journal::hex;
use super::super::step::{self, Line, Plan, Step};
use super::super::tell::Tell;
use super::super::{JOINED, PREPARED};
use super::config_file::{self, Choices};
use super::membership::{Membership, secret};
use super::{Conf, Member, activation, corosync, pki};
use crate::config::Config;
use crate::doctor::Check;
use crate::pages::{self, ClusterFile, StoredNode};
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use steadfast_core::ids::NodeId;

/// What the operator says.
#[derive(Debug, Clone)]
pub struct Init {
    /// This node's name.
    pub name: String,
    /// Its address on each link.
    pub addresses: Vec<IpAddr>,
    /// Corosync's token, if the preset's does not fit, in milliseconds.
    pub token_ms: Option<u64>,
    /// The device again, to overwrite what is on it.
    pub force: Option<PathBuf>,
    /// Everything else.
    pub choices: Choices,
}

/// What would be done, without doing it.
///
/// # Errors
/// The machine cannot be looked at, or is another cluster's.
pub fn preview(host: &Host, init: &Init) -> Result<Vec<Line>> {
    let membership = init.membership(host)?;
    step::preview(host, JOINED, &init.plan(&membership))
}

/// Does it.
///
/// # Errors
/// A step failed: a repeat goes on there.
pub fn init(host: &Host, init: &Init, tell: &mut Tell) -> Result<Vec<Line>> {
    let membership = init.membership(host)?;
    step::perform(host, JOINED, &init.plan(&membership), tell)
}

impl Init {
    fn plan<'a>(&'a self, membership: &'a Membership) -> Plan<'a> {
        let mut plan: Plan<'a> =
            vec![Box::new(|host| Ok(self.ready(host))), Box::new(|_| Ok(self.storage()))];
        plan.extend(membership.plan());
        plan
    }

    /// What is there already, and new secrets for what is not.
    fn membership(&self, host: &Host) -> Result<Membership> {
        let cluster = &self.choices.cluster;
        ensure!(
            !cluster.is_empty()
                && cluster.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_'),
            "{cluster:?} is no name of a cluster: letters, digits, - and _ are"
        );
        let text = |path: &str| host.text(path);
        let conf = self.conf(text(corosync::PATH))?;
        let kept = text(corosync::PATH).is_some_and(|text| text.starts_with(corosync::MARK));
        let authkey = match host.bytes(corosync::KEY)? {
            Some(bytes) if kept || host.has(JOINED) => hex(&bytes),
            _ => secret(256)?,
        };
        let authority_key = text(pki::AUTHORITY_KEY).map_or_else(pki::new_key, Ok)?;
        let key = text(pki::NODE_KEY).map_or_else(pki::new_key, Ok)?;
        let made = || pki::authority_certificate(cluster, &authority_key);
        let authority = text(pki::AUTHORITY).map_or_else(made, Ok)?;
        let who = (self.name.as_str(), &self.addresses[..]);
        let made = || pki::member_certificate(cluster, &authority_key, &key, who);
        let certificate = text(pki::NODE).map_or_else(made, Ok)?;
        let config = match text(config_file::PATH) {
            Some(mine) => {
                config_file::check_existing(&mine, &self.choices)?;
                mine
            }
            None => self.configuration(&conf)?,
        };
        let (active, corosync) = (activation::is_active(host) && kept, conf.render());
        let corosync = if kept { text(corosync::PATH).unwrap_or(corosync) } else { corosync };
        let name = self.name.clone();
        Ok(Membership {
            name,
            authkey,
            corosync,
            config,
            authority,
            authority_key,
            certificate,
            key,
            active,
        })
    }

    fn configuration(&self, conf: &Conf) -> Result<String> {
        let text = self.choices.render();
        let config = Config::parse(&text).map_err(|problems| anyhow::anyhow!("{problems}"))?;
        let membership = steadfast_core::time::Millis(conf.membership_ms());
        config.timing(membership).map_err(|problems| anyhow::anyhow!("{problems}"))?;
        Ok(text)
    }

    /// The file that is there, if it is this cluster's; else a new one.
    fn conf(&self, found: Option<String>) -> Result<Conf> {
        let found = found.unwrap_or_default();
        ensure!(
            !corosync::is_foreign(&found),
            "{} belongs to a cluster that others made: stop corosync and move the file away",
            corosync::PATH
        );
        let (cluster, name) = (&self.choices.cluster, &self.name);
        if found.starts_with(corosync::MARK) {
            let conf = Conf::parse(&found)?;
            let is = &conf.cluster;
            ensure!(is == cluster, "this node belongs to cluster {is:?}, not {cluster:?}");
            let member =
                conf.member(name).with_context(|| format!("{name} is no node of {is:?}"))?;
            let (is, want) =
                (corosync::listed(&member.addresses), corosync::listed(&self.addresses));
            ensure!(is == want, "{name} is at {is}, not at {want}");
            return Ok(conf);
        }
        let token_ms = self.token_ms.unwrap_or_else(|| corosync::token_ms(self.choices.preset));
        let empty =
            Conf { cluster: cluster.clone(), token_ms, version: 0, members: Vec::<Member>::new() };
        empty.with(name, &self.addresses)
    }

    fn ready(&self, host: &Host) -> Step {
        const NAME: &str = "node";
        let step = Step::new(NAME, "only a prepared machine can be a node");
        if !host.has(PREPARED) {
            let text = "this machine is not prepared";
            return step.say(Check::red(NAME, text, "run `steadfast node prepare` first"));
        }
        match self.addresses.iter().find(|at| !is_local(**at)) {
            Some(other) => {
                let text = format!("{other} is no address of this machine");
                step.say(Check::red(
                    NAME,
                    text,
                    "give this node's own address on the cluster's network",
                ))
            }
            None => step,
        }
    }

    fn storage(&self) -> Step {
        let place = self.choices.place.clone();
        let node = StoredNode { id: NodeId(1), name: self.name.clone() };
        let (cluster, force) = (self.choices.cluster.clone(), self.force.clone());
        let (looked, name) = (place.clone(), cluster.clone());
        let act = Act {
            what: format!("make the store of {cluster} in {place}"),
            look: Box::new(move |_| {
                let found = pages::look(&looked).ok();
                let ours = found.filter(|found| found.cluster == name);
                Ok(ours.map(|found| found.words()))
            }),
            act: Box::new(move |host| {
                host.burn()?;
                let wanted = ClusterFile::new(&cluster, std::slice::from_ref(&node))?;
                pages::init(&place, &wanted, force.as_ref())?;
                Ok(format!("{place} is ready"))
            }),
        };
        Step::new("storage", "the ledger lies on storage that all nodes share")
            .with(Change::Act(act))
    }
}

/// An address of this machine: a socket can be bound to it.
pub(crate) fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}
