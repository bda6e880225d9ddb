//! Plans, transitions and kernel words, from worlds typed by hand.

mod exits;
mod planning;
mod transition;
pub(crate) mod worlds;
