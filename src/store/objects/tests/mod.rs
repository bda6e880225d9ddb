//! Stories about a directory of objects, on real files.

mod cached;
mod sequence;
mod world;
mod written;
