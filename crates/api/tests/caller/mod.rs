//! Whoever calls the API server from outside: a connection that is used again, and API keys that look
//! like keys and that nobody has.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::Instant,
};

/// What came back, and how long it took.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

/// A connection that is used again and again.
pub(crate) struct Line(BufReader<TcpStream>);

impl Line {
    pub(crate) async fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a body of JSON, and waits for the answer.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        bearer: &str,
        body: &str,
    ) -> io::Result<Answer> {
        self.send("POST", path, bearer, body).await
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        bearer: &str,
        body: &str,
    ) -> io::Result<Answer> {
        let began = Instant::now();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bearer}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.write_all(request.as_bytes()).await?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = head.to_ascii_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let length = field("content-length: ").map_or(0, |it| it.trim().parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        let took = began.elapsed();
        Ok(Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: String::from_utf8(body).unwrap(),
            took,
        })
    }
}

/// Made as keys are, checksum and all; only that nobody has it.
pub(crate) fn wrong_key(number: u64) -> String {
    checked(format!(
        "sk_live_{}_{}",
        base62(number, 8),
        base62(number, 43)
    ))
}

/// With the id of a key that is there, and another secret.
pub(crate) fn with_id_of(key: &str, secret: u64) -> String {
    checked(format!("{}{}", public_part(key), base62(secret, 43)))
}

/// Wrong in one character, the last of its secret.
pub(crate) fn nearly(key: &str) -> String {
    let mut said = key.to_owned();
    said.truncate(key.len() - 6);
    let last = said.pop().unwrap();
    said.push(if last == '0' { '1' } else { '0' });
    checked(said)
}

/// Up to its secret.
fn public_part(key: &str) -> &str {
    key.split_at("sk_live_12345678_".len()).0
}

/// A key's text with its checksum.
fn checked(said: String) -> String {
    let checksum = base62(u64::from(crc32(said.as_bytes())), 6);
    said + &checksum
}

fn base62(mut number: u64, digits: usize) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = vec![b'0'; digits];
    for place in text.iter_mut().rev() {
        *place = ALPHABET[usize::try_from(number % 62).unwrap()];
        number /= 62;
    }
    String::from_utf8(text).unwrap()
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut rest = u32::MAX;
    for byte in bytes {
        rest ^= u32::from(*byte);
        for _ in 0..8 {
            rest = (rest >> 1) ^ (0xedb8_8320 & (rest & 1).wrapping_neg());
        }
    }
    !rest
}
