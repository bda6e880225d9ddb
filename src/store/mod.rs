//! The directory datastore.

pub mod objects;
