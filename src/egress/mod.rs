//! What a pod's traffic does and what each node must hold for it. Pure: no files, no kernel, no clock.

pub mod model;
