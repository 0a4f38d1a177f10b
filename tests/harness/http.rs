//! As much HTTP/1.1 as talking to servers on loopback, and being one, takes: one request per connection.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// A response, its body read to the end.
pub struct Response {
    /// Such as 201.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// All of it.
    pub body: Vec<u8>,
}

impl Response {
    /// First header of that name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A request as a server gets it.
pub struct Received {
    /// Such as `GET`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// All of it.
    pub body: Vec<u8>,
}

impl Received {
    /// Reads one; `None` if the client asks nothing.
    pub fn read(connection: &TcpStream) -> std::io::Result<Option<Received>> {
        let mut reader = BufReader::new(connection);
        let Some(mut received) = Received::read_head(&mut reader)? else { return Ok(None) };
        let length = received.header("content-length").parse().unwrap_or(0);
        reader.take(length).read_to_end(&mut received.body)?;
        Ok(Some(received))
    }

    /// Reads one up to its body.
    pub fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<Received>> {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace().map(str::to_string);
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
        let mut received = Received { method, target, headers: vec![], body: vec![] };
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            received.headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
        Ok(Some(received))
    }

    /// First header of that name, given in lower case; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// `path` with query; `host` as `127.0.0.1:5000`.
pub fn request(host: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
    let mut stream = TcpStream::connect(host).with_context(|| format!("connect to {host}"))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).context("send request")?;
    stream.write_all(body).context("send body")?;
    let mut answer = vec![];
    stream.read_to_end(&mut answer).context("read response")?;
    parse(&answer, method)
}

fn parse(answer: &[u8], method: &str) -> Result<Response> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("response without end of head")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("response without status")?.parse()?;
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
        .collect();
    let mut response = Response { status, headers, body: answer[end + 4..].to_vec() };
    if method != "HEAD" && response.header("transfer-encoding") == Some("chunked") {
        response.body = unchunk(&response.body)?;
    }
    Ok(response)
}

fn unchunk(mut body: &[u8]) -> Result<Vec<u8>> {
    let mut whole = vec![];
    loop {
        let end = body.windows(2).position(|bytes| bytes == b"\r\n").context("chunk without size")?;
        let size = std::str::from_utf8(&body[..end])?.split(';').next().unwrap_or("").trim();
        let size = usize::from_str_radix(size, 16).context("chunk size")?;
        if size == 0 {
            return Ok(whole);
        }
        let start = end + 2;
        let Some(chunk) = body.get(start..start + size) else { bail!("chunk is cut off") };
        whole.extend_from_slice(chunk);
        body = body.get(start + size + 2..).context("chunk without end")?;
    }
}
