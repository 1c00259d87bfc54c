//! A relay's counters, as its operator reads them.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
};

use tokio::task::spawn_blocking;

/// What a counter stands at; nothing when nobody answers, or when it is not on the page.
pub fn metric(health: impl ToSocketAddrs, name: &str) -> Option<u64> {
    let mut stream = TcpStream::connect(health).ok()?;
    let request = "GET /metrics HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    let mut values = page.lines().filter_map(|line| line.strip_prefix(name));
    let value = values.find_map(|rest| rest.strip_prefix(' '))?;
    value.parse().ok()
}

/// The same where the relay runs on the threads of the test, which must not be held up.
pub async fn metric_meanwhile(health: SocketAddr, name: &'static str) -> Option<u64> {
    let value = spawn_blocking(move || metric(health, name));
    value.await.ok()?
}
