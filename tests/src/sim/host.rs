//! Hosts that are shut down or rebooted on purpose: the agent is asked first, and the rest of the machine goes after it.

use super::clock::{MS, SECOND, Time};
use super::queue::What;
use super::world::World;
use steadfast_core::event::Event;

/// systemd waits no longer for an agent that is still busy.
const PATIENCE: Time = 900 * SECOND;
/// From the agent's end to the last instruction: shorter than it takes to be missed, so that the judge need not know an agent that
/// has ended from one that is silent.
const REST: Time = 300 * MS;

impl World {
    /// Somebody shuts the host down, or reboots it.
    pub fn host_stops(&mut self, n: usize, reboot: bool) {
        let Some(boot) = self.nodes[n].boot.as_ref().map(|_| self.nodes[n].boots) else { return };
        if self.nodes[n].stops.is_some_and(|(stops, _)| stops == boot) {
            return;
        }
        self.note(n, || format!("its host is to {}", if reboot { "reboot" } else { "stop" }));
        self.nodes[n].stops = Some((boot, reboot));
        let patience = match self.epoch(n) {
            Some(epoch) => {
                self.answer(n, epoch, 0, Event::HostStopping { reboot });
                PATIENCE
            }
            None => REST,
        };
        self.queue.push(self.now + patience, What::HostGoes { node: n, boot });
    }

    /// The agent has nothing left to do: it ends, and the rest of the machine goes down.
    pub fn host_may_stop(&mut self, n: usize, epoch: u64) {
        let boots = self.nodes[n].boots;
        if self.nodes[n].stops.is_some_and(|(boot, _)| boot == boots) {
            self.answer(n, epoch, 0, Event::ShutdownRequested);
            self.queue.push(self.now + REST, What::HostGoes { node: n, boot: boots });
        }
    }

    /// The last instruction.
    pub fn host_goes(&mut self, n: usize, boot: u64) {
        let on = self.nodes[n].boot.is_some() && self.nodes[n].boots == boot;
        let stops = self.nodes[n].stops.take_if(|(stops, _)| *stops == boot);
        let Some((_, reboot)) = stops.filter(|_| on) else { return };
        self.cut(n, "shutdown");
        // After healing nobody leaves a host off.
        if reboot || self.healed {
            let drawn = self.rng.range(4, 40) * SECOND;
            let after = self.script.reboot.flatten().unwrap_or(drawn);
            self.queue.push(self.now + after, What::Boot { node: n });
        }
    }

    /// Its agent came back although its host is on its way down: it is told again.
    pub fn remind_of_stop(&mut self, n: usize, epoch: u64) {
        let boots = self.nodes[n].boots;
        if let Some((_, reboot)) = self.nodes[n].stops.filter(|(boot, _)| *boot == boots) {
            self.answer(n, epoch, 0, Event::HostStopping { reboot });
        }
    }
}
