//! An HTTP/1.1 server on loopback that answers as a test tells it to, and remembers what it was asked.

use crate::http::Received;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// A running server; stops when dropped.
pub struct HttpServer {
    /// `127.0.0.1:PORT`.
    pub host: String,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    answers: BTreeMap<String, Answer>,
    /// Path prefix, folder.
    folders: Vec<(String, PathBuf)>,
    requests: Vec<Asked>,
    stopped: bool,
}

/// What a path gives.
#[derive(Clone, Default)]
pub struct Answer {
    body: Vec<u8>,
    headers: Vec<(String, String)>,
    status: u16,
    /// `Authorization` that must be sent.
    authorization: Option<String>,
    /// So many requests are answered with this status first.
    failures: (u32, u16),
    /// So many answers end in the middle of the body.
    cuts: u32,
    /// The body never ends.
    stalls: bool,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Such as `GET`.
    pub method: String,
    /// With query.
    pub path: String,
    headers: Vec<(String, String)>,
    /// Of the answer.
    pub status: u16,
}

impl Asked {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Answer {
    /// 200 with that body.
    pub fn new(body: impl Into<Vec<u8>>) -> Answer {
        Answer { body: body.into(), status: 200, ..Answer::default() }
    }

    /// Another status.
    pub fn status(status: u16) -> Answer {
        Answer { status, ..Answer::default() }
    }

    /// 302 to a URL.
    pub fn redirect(location: &str) -> Answer {
        Answer::status(302).header("Location", location)
    }

    /// Adds a header. With an `ETag` or `Last-Modified`, a request that has it already is answered with 304.
    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// 401 for all who do not send this as `Authorization`.
    pub fn needs(mut self, authorization: &str) -> Answer {
        self.authorization = Some(authorization.into());
        self
    }

    /// Answers so often with this status first.
    pub fn fails(mut self, times: u32, status: u16) -> Answer {
        self.failures = (times, status);
        self
    }

    /// Ends so often in the middle of the body.
    pub fn cuts(mut self, times: u32) -> Answer {
        self.cuts = times;
        self
    }

    /// Sends half of the body and then nothing more.
    pub fn stalls(mut self) -> Answer {
        self.stalls = true;
        self
    }

    fn value(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

impl HttpServer {
    /// Starts one that answers 404 to everything.
    pub fn start() -> HttpServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let host = listener.local_addr().expect("address of the server").to_string();
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let shared = state.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = shared.clone();
                if lock(&state.0).stopped {
                    return;
                }
                std::thread::spawn(move || {
                    let _ = serve(connection, &state);
                });
            }
        });
        HttpServer { host, state }
    }

    /// Sets what a path gives, queries not counted.
    pub fn set(&self, path: &str, answer: Answer) {
        lock(&self.state.0).answers.insert(path.into(), answer);
    }

    /// Gives files of a folder below a path.
    pub fn folder(&self, path: &str, folder: &Path) {
        lock(&self.state.0).folders.push((path.into(), folder.into()));
    }

    /// `http://127.0.0.1:PORT` and the path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }

    /// What was asked for since this was last called.
    pub fn requests(&self) -> Vec<Asked> {
        std::mem::take(&mut lock(&self.state.0).requests)
    }

    /// Waits until something was asked for that [`HttpServer::requests`] has not told yet.
    pub fn wait(&self) {
        let (state, asked_for) = &*self.state;
        let waited = asked_for.wait_while(lock(state), |state| state.requests.is_empty());
        drop(waited.expect("the server does not panic"));
    }

    /// Accepts no more connections.
    pub fn stop(&self) {
        lock(&self.state.0).stopped = true;
        let _ = TcpStream::connect(&self.host);
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// One request per connection.
fn serve(mut connection: TcpStream, (state, asked_for): &(Mutex<State>, Condvar)) -> std::io::Result<()> {
    let Some(Received { method, target: path, headers, .. }) = Received::read(&connection)? else { return Ok(()) };
    let mut asked = Asked { method, path, headers, status: 0 };
    let answer = {
        let mut state = lock(state);
        let answer = state.answer(&asked);
        asked.status = answer.status;
        state.requests.push(asked.clone());
        asked_for.notify_all();
        answer
    };
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let body = if answer.status == 304 { &[][..] } else { &answer.body };
    if answer.status != 304 {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    connection.write_all(format!("{head}\r\n").as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    if answer.cuts > 0 || answer.stalls {
        connection.write_all(&body[..body.len() / 2])?;
        if answer.stalls {
            // Until the client goes.
            let _ = connection.read(&mut [0]);
        }
        return Ok(());
    }
    connection.write_all(body)
}

impl State {
    fn answer(&mut self, asked: &Asked) -> Answer {
        let path = asked.path.split('?').next().unwrap_or_default().to_string();
        let Some(answer) = self.answers.get_mut(&path) else { return self.file(&path) };
        if answer.authorization.is_some() && asked.header("authorization") != answer.authorization.as_deref() {
            return Answer::status(401);
        }
        if answer.failures.0 > 0 {
            answer.failures.0 -= 1;
            return Answer::status(answer.failures.1);
        }
        let validators = [("if-none-match", "etag"), ("if-modified-since", "last-modified")];
        let known = validators.into_iter().find_map(|(condition, validator)| {
            let sent = asked.header(condition)?;
            Some(answer.value(validator) == Some(sent))
        });
        if known == Some(true) {
            return Answer { status: 304, ..answer.clone() };
        }
        let now = answer.clone();
        answer.cuts = answer.cuts.saturating_sub(1);
        now
    }

    fn file(&self, path: &str) -> Answer {
        let found = self.folders.iter().find_map(|(prefix, folder)| {
            let name = path.strip_prefix(prefix.as_str())?.trim_start_matches('/');
            std::fs::read(folder.join(name)).ok()
        });
        found.map_or_else(|| Answer::status(404), Answer::new)
    }
}
