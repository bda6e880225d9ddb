//! Stories about a directory of objects, on real files.

mod cached;
mod policies;
mod sequence;
mod world;
mod written;
