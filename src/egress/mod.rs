//! What a pod's traffic does and what each node must hold for it. Pure: no files, no kernel, no clock.

mod always;
pub mod annotations;
pub mod belts;
mod candidates;
pub mod decision;
mod entrance;
pub mod exit_planning;
pub mod exits;
pub mod explain;
pub mod gateway;
mod gateway_row;
pub mod gateway_state;
pub mod here;
pub mod inside;
pub mod interfaces;
mod leased;
pub mod lint;
pub mod list;
pub mod lower;
pub mod lower_clients;
pub mod lower_nft;
pub mod model;
pub mod names;
mod node_gateways;
pub mod numbering;
pub mod numbers;
pub mod overture;
pub mod own_address;
pub mod peers;
pub mod plan;
pub mod planning;
pub mod policy;
pub mod prefixes;
mod replies;
pub mod resolve;
pub mod selector;
pub mod serving;
pub mod shared;
mod sharing;
pub mod standing;
pub mod transition;
pub mod unservable;
mod way_out;

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) mod world;
