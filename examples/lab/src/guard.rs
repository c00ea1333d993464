//! A lab that goes away with its owner, however the owner ends.

use std::ops::Deref;

use crate::lab::Lab;
use crate::sys;

#[derive(Debug)]
pub struct Guard(pub Lab);

impl Deref for Guard {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // What ended the owner must not end the cleaning.
        sys::forget_interrupt();
        self.0.down();
    }
}
