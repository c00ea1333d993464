//! What nodes are worth to VMs of one size, kept from one VM to the next: ten thousand VMs have few sizes, and each that is placed
//! changes one node.

use alloc::{vec, vec::Vec};

/// So many sizes are kept at most; of two that meet in one slot the last.
const SLOTS: usize = 1024;
const NONE: u16 = u16::MAX;

/// Memory in MiB and virtual CPUs.
type Size = (u64, u32);

/// Values by size and place.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    /// Rows by the hash of their size.
    slots: Vec<u16>,
    rows: Vec<Row>,
    /// Places that changed, in order.
    changes: Vec<u32>,
}

#[derive(Debug)]
struct Row {
    size: Size,
    /// So many changes are in it.
    seen: usize,
    values: Vec<i64>,
}

impl Sizes {
    /// Values at this place are others from now on.
    pub(crate) fn changed(&mut self, place: usize) {
        self.changes.push(u32::try_from(place).unwrap_or(u32::MAX));
    }

    /// The values of all places for this size; `value` tells those that are not known.
    pub(crate) fn values(
        &mut self,
        size: Size,
        places: usize,
        value: impl Fn(usize) -> i64,
    ) -> &[i64] {
        let row = self.row(size);
        let row = &mut self.rows[row];
        let changes = self.changes.get(row.seen..).unwrap_or(&[]);
        if row.size != size || row.values.len() != places || changes.len() >= places {
            row.values.clear();
            row.values.extend((0..places).map(value));
        } else {
            for place in changes {
                row.values[*place as usize] = value(*place as usize);
            }
        }
        (row.size, row.seen) = (size, self.changes.len());
        &row.values
    }

    fn row(&mut self, size: Size) -> usize {
        if self.slots.is_empty() {
            self.slots = vec![NONE; SLOTS];
        }
        let slot = &mut self.slots[slot(size)];
        if *slot == NONE {
            *slot = u16::try_from(self.rows.len()).unwrap_or(0);
            self.rows.push(Row { size, seen: 0, values: Vec::new() });
        }
        usize::from(*slot)
    }
}

fn slot((memory, cpus): Size) -> usize {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let sum = (memory.wrapping_mul(MIX) ^ u64::from(cpus)).wrapping_mul(MIX);
    (sum >> 32) as u32 as usize % SLOTS
}
