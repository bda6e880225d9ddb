//! What a pod's traffic does and what each node must hold for it. Pure: no files, no kernel, no clock.

pub mod annotations;
mod candidates;
pub mod gateway;
pub mod model;
mod near;
pub mod resolve;
pub mod selector;
#[cfg(test)]
mod world;
