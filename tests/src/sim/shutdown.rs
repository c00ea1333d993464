//! Guests that shut themselves down, by their own will or because they were asked to.

use super::clock::MS;
use super::queue::What;
use super::world::World;
use steadfast_core::event::Event;
use steadfast_core::ids::VmId;

impl World {
    /// The power button is pressed: a guest that listens shuts down within seconds.
    pub fn shut_down_vm(&mut self, node: usize, vm: &VmId) {
        let (boot, vm) = (self.nodes[node].boots, self.vm_index(vm));
        let at = self.now + self.rng.range(200, 3_000) * MS;
        self.queue.push(at, What::ShutDown { node, boot, vm });
    }

    /// It has shut down, unless its kernel is gone or it does not listen.
    pub fn shut_down_on(&mut self, node: usize, boot: u64, vm: usize) {
        let deaf = self.script.deaf >> vm & 1 == 1;
        if !deaf && self.nodes[node].boots == boot {
            self.guest_shuts_down(node, vm);
        }
    }

    /// A guest shuts itself down: libvirt says so to whom watches it, and its process ends.
    pub fn guest_shuts_down(&mut self, n: usize, vm: usize) {
        if self.executing(n) >> vm & 1 == 0 {
            return;
        }
        if let Some(epoch) = self.epoch(n) {
            let delay = self.rng.range(1, 50) * MS;
            self.answer(n, epoch, delay, Event::GuestShutDown { vm: self.vms[vm].clone() });
        }
        self.guest_ends(n, vm, "shuts itself down");
    }
}
