//! Stands before a server and does harm: drops, delays, cuts and changes what goes through, on the requests that a test
//! names. Everything else goes through as it is. One request per connection.

use crate::http::Received;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A running proxy; stops when dropped.
pub struct FaultProxy {
    /// `127.0.0.1:PORT`.
    pub host: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    /// `METHOD path` and what was done.
    log: Vec<(String, Option<Fault>)>,
    stopped: bool,
}

/// What is done to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The connection ends, and the server never hears of the request.
    Drop,
    /// The server gets the request and carries it out; the client gets no answer.
    DropAnswer,
    /// The head of the answer comes, and none of its body.
    DropBody,
    /// Half of the answer's body comes.
    CutBody,
    /// Half of the request's body is read.
    CutRequest,
    /// The answer comes so much later.
    Delay(Duration),
    /// A bit of the answer's body is another.
    FlipBit,
    /// A bit of the request's body is another.
    FlipSentBit,
    /// A status of the proxy's own; the server never hears of the request.
    Status(u16, &'static [(&'static str, &'static str)], &'static str),
    /// The answer's `Content-Length` is so much off, and its body longer by as much if there is no other way.
    Length(i64),
    /// The answer's header of that name has that value.
    Header(&'static str, &'static str),
}

/// When it is done.
#[derive(Clone, Debug)]
pub struct Rule {
    method: &'static str,
    part: String,
    fault: Fault,
    /// Matching requests that are let through first.
    skip: u32,
    /// How often it is done.
    times: u32,
    /// How long it is done, from the first time on.
    lasts: Option<Duration>,
    until: Option<Instant>,
}

impl Rule {
    /// Requests of that method (`*`: all) whose path and query contain `part`, always.
    pub fn new(method: &'static str, part: &str, fault: Fault) -> Rule {
        Rule { method, part: part.into(), fault, skip: 0, times: u32::MAX, lasts: None, until: None }
    }

    /// So often only.
    pub fn times(self, times: u32) -> Rule {
        Rule { times, ..self }
    }

    /// Not for the first so many.
    pub fn after(self, skip: u32) -> Rule {
        Rule { skip, ..self }
    }

    /// So long only, from the first time on.
    pub fn lasting(self, lasts: Duration) -> Rule {
        Rule { lasts: Some(lasts), ..self }
    }

    fn strikes(&mut self, method: &str, target: &str) -> bool {
        if !(self.method == "*" || self.method == method) || !target.contains(&self.part) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if let Some(lasts) = self.lasts {
            let now = Instant::now();
            if now >= *self.until.get_or_insert(now + lasts) {
                return false;
            }
        }
        let strikes = self.times > 0;
        self.times = self.times.saturating_sub(1);
        strikes
    }
}

impl FaultProxy {
    /// Starts one before `server` (`127.0.0.1:PORT`), harmless at first.
    pub fn start(server: &str) -> FaultProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let host = listener.local_addr().expect("address of the proxy").to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, server) = (state.clone(), server.to_string());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (state, server) = (shared.clone(), server.clone());
                if lock(&state).stopped {
                    return;
                }
                std::thread::spawn(move || {
                    let _ = serve(&connection, &server, &state);
                    let _ = connection.shutdown(Shutdown::Both);
                });
            }
        });
        FaultProxy { host, state }
    }

    /// What is done from now on, in place of what was.
    pub fn set(&self, rules: impl IntoIterator<Item = Rule>) {
        let mut state = lock(&self.state);
        state.rules = rules.into_iter().collect();
        state.log.clear();
    }

    /// `METHOD path` of the requests since [`FaultProxy::set`], and what was done to each.
    pub fn log(&self) -> Vec<(String, Option<Fault>)> {
        lock(&self.state).log.clone()
    }

    /// How many requests met a fault since [`FaultProxy::set`].
    pub fn struck(&self) -> usize {
        self.log().iter().filter(|(_, fault)| fault.is_some()).count()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        lock(&self.state).stopped = true;
        let _ = TcpStream::connect(&self.host);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(client: &TcpStream, server: &str, state: &Mutex<State>) -> io::Result<()> {
    let mut input = BufReader::new(client);
    let Some(mut request) = Received::read_head(&mut input)? else { return Ok(()) };
    let fault = {
        let mut state = lock(state);
        let fault = state
            .rules
            .iter_mut()
            .find_map(|rule| rule.strikes(&request.method, &request.target).then(|| rule.fault.clone()));
        state.log.push((format!("{} {}", request.method, request.target), fault.clone()));
        fault
    };
    let length: u64 = request.header("content-length").parse().unwrap_or(0);
    match &fault {
        Some(Fault::Drop) => return Ok(()),
        Some(Fault::CutRequest) => {
            io::copy(&mut input.by_ref().take(length / 2), &mut io::sink())?;
            return Ok(());
        }
        _ => input.by_ref().take(length).read_to_end(&mut request.body).map(drop)?,
    }
    let mut client = client;
    match &fault {
        Some(Fault::Status(status, headers, body)) => {
            let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
            headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
            let body = if request.method == "HEAD" { "" } else { body };
            return client.write_all(format!("{head}\r\n{body}").as_bytes());
        }
        Some(Fault::FlipSentBit) => flip(&mut request.body),
        _ => {}
    }
    let (mut head, mut body) = forward(&request, server)?;
    match fault {
        Some(Fault::DropAnswer) => return Ok(()),
        Some(Fault::Delay(delay)) => std::thread::sleep(delay),
        Some(Fault::FlipBit) => flip(&mut body),
        Some(Fault::CutBody) => body.truncate(body.len() / 2),
        Some(Fault::DropBody) => body.clear(),
        Some(Fault::Header(name, value)) => {
            head.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            head.push((name.into(), value.into()));
        }
        Some(Fault::Length(off)) => {
            let length = head.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let Some((_, value)) = length else { return Ok(()) };
            *value = value.parse::<i64>().unwrap_or(0).saturating_add(off).to_string();
            body.extend(std::iter::repeat_n(b'x', off.max(0) as usize));
        }
        _ => {}
    }
    let mut text = String::new();
    head.iter().for_each(|(name, value)| match name.is_empty() {
        true => text += &format!("{value}\r\nConnection: close\r\n"),
        false => text += &format!("{name}: {value}\r\n"),
    });
    client.write_all(format!("{text}\r\n").as_bytes())?;
    client.write_all(&body)
}

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
}

/// The answer's head, the status line under an empty name, and its body as it came.
type Answer = (Vec<(String, String)>, Vec<u8>);

fn forward(request: &Received, server: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server)?;
    let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", request.method, request.target);
    for (name, value) in request.headers.iter().filter(|(name, _)| name != "connection") {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&request.body)?;
    let mut reader = BufReader::new(stream);
    let mut lines = vec![];
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(": ").filter(|_| !lines.is_empty()) {
            Some((name, _)) if name.eq_ignore_ascii_case("connection") => {}
            Some((name, value)) => lines.push((name.to_string(), value.to_string())),
            None => lines.push((String::new(), line.to_string())),
        }
    }
    let mut body = vec![];
    reader.read_to_end(&mut body)?;
    Ok((lines, body))
}
