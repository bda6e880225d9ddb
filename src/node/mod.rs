//! This node: what is known here and nowhere else, and the outer shell of what is done here.

pub mod attachment;
pub mod netns;
pub mod records;
