//! The least that a plugin with an agent does: it reads what it is told, asks a socket, prints the answer.
//!
//! In: standard input; the socket lies beside the program, with `.sock` behind its name. Out: what the socket said. Never: understands a
//! word of it. `scripts/bench cluster` measures it beside the plugin, so that what processes and sockets cost is told apart from what we do.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

fn main() -> io::Result<()> {
    let program = std::env::args().next().unwrap_or_default();
    let mut text = [0; 16 * 1024];
    let told = io::stdin().read(&mut text)?;
    let mut socket = UnixStream::connect(program + ".sock")?;
    socket.write_all(&text[..told])?;
    let said = socket.read(&mut text)?;
    io::stdout().write_all(&text[..said])
}
