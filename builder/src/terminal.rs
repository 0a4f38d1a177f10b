//! The user's terminal, lent to a process in a sandbox. The process gets a terminal of its own (a pty), so that it can
//! do nothing to the user's; what is typed and shown goes from one to the other. The user's terminal is in raw mode in
//! that time, and as before afterwards, however the loan ends.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::pty::OpenptFlags;
use rustix::stdio::{stderr, stdin};
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::signal::unix::{SignalKind, signal};

/// Whether there is one: standard input and standard error.
pub fn is_there() -> bool {
    isatty(stdin()) && isatty(stderr())
}

/// A new terminal.
pub struct Pty {
    /// Our end.
    pub master: OwnedFd,
    /// What the process has as its streams.
    pub slave: OwnedFd,
    /// Path of the slave.
    pub path: PathBuf,
}

impl Pty {
    /// Makes one, as large as the user's terminal.
    pub fn open() -> io::Result<Pty> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(rustix::pty::ptsname(&master, vec![])?.into_bytes()));
        let slave = rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        resize(master.as_fd());
        // Ours alone, unlike the user's terminal: nobody else sees that it does not block.
        rustix::fs::fcntl_setfl(&master, rustix::fs::fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
        Ok(Pty { master, slave, path })
    }
}

/// The user's terminal while it is lent; dropping this ends the loan.
pub struct Loan {
    /// Closed to stop the thread.
    stop: Option<OwnedFd>,
    relay: Option<std::thread::JoinHandle<()>>,
    sizes: tokio::task::JoinHandle<()>,
}

impl Loan {
    /// Connects the user's terminal with that one. In a tokio runtime.
    pub fn new(master: OwnedFd) -> io::Result<Loan> {
        let master = Arc::new(master);
        let mut changes = signal(SignalKind::window_change())?;
        let resized = master.clone();
        let sizes = tokio::spawn(async move {
            while changes.recv().await.is_some() {
                resize(resized.as_fd());
            }
        });
        resize(master.as_fd());
        let (stopped, stop) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        enter_raw_mode()?;
        let relay = std::thread::Builder::new().name("terminal".into()).spawn(move || {
            // What cannot be shown or read any more is lost; the process goes on or ends by itself.
            let _ = relay(master.as_fd(), stopped.as_fd());
        });
        let relay = match relay {
            Ok(relay) => relay,
            Err(error) => {
                restore();
                return Err(error);
            }
        };
        Ok(Loan { stop: Some(stop), relay: Some(relay), sizes })
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.sizes.abort();
        self.stop = None;
        if let Some(relay) = self.relay.take() {
            let _ = relay.join();
        }
        restore();
    }
}

/// How the terminal was before it was lent; `None` while it is not.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

fn enter_raw_mode() -> io::Result<()> {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    let attributes = tcgetattr(stdin())?;
    let mut raw = attributes.clone();
    raw.make_raw();
    tcsetattr(stdin(), OptionalActions::Now, &raw)?;
    before.get_or_insert(attributes);
    Ok(())
}

/// Gives the terminal back as it was. For those who end the program without dropping what it has.
pub fn restore() {
    if let Some(attributes) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // The only failure is that it is gone.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &attributes);
    }
}

/// Asks for a line that is not shown while it is typed. Control-C ends it, with an error.
pub fn read_hidden(prompt: &str) -> io::Result<String> {
    let before = tcgetattr(stdin())?;
    let mut hidden = before.clone();
    // Signals would leave the terminal as it is now; Control-C is a byte like any other.
    hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    tcsetattr(stdin(), OptionalActions::Flush, &hidden)?;
    // Only now: who answers at once is not to be shown, nor lost.
    eprint!("{prompt}");
    let line = read_line_raw();
    tcsetattr(stdin(), OptionalActions::Now, &before)?;
    eprintln!();
    line
}

fn read_line_raw() -> io::Result<String> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const BACKSPACES: [u8; 2] = [8, 127];
    let mut line = vec![];
    let mut byte = [0];
    loop {
        if rustix::io::retry_on_intr(|| rustix::io::read(stdin(), &mut byte))? == 0 {
            break;
        }
        match byte[0] {
            b'\n' | b'\r' | END => break,
            INTERRUPT => return Err(io::Error::new(io::ErrorKind::Interrupted, "stopped by Control-C")),
            other if BACKSPACES.contains(&other) => {
                // A character may be several bytes: the last of them are 10xxxxxx.
                while line.pop().is_some_and(|byte: u8| byte & 0xC0 == 0x80) {}
            }
            other => line.push(other),
        }
    }
    String::from_utf8(line).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "what was typed is not UTF-8"))
}

/// Gives `master` the size of the user's terminal, if that has one.
fn resize(master: BorrowedFd<'_>) {
    if let Ok(size) = tcgetwinsize(stderr()) {
        let _ = tcsetwinsize(master, size);
    }
}

/// Passes bytes both ways until `stopped` is closed at its other end and nothing is left to show.
fn relay(master: BorrowedFd<'_>, stopped: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut buffer = vec![0; 16 * 1024];
    // Typed and not yet taken by the process, which may be busy: then no more is read.
    let mut typed: Vec<u8> = vec![];
    let mut typing = true;
    loop {
        let (read, write) = (PollFlags::IN, PollFlags::OUT);
        let to_process = if typed.is_empty() { read } else { read | write };
        let (input, error) = (stdin(), stderr());
        let mut polled = [
            PollFd::from_borrowed_fd(master, to_process),
            PollFd::from_borrowed_fd(stopped, read),
            PollFd::from_borrowed_fd(input, read),
        ];
        let takes_keys = typing && typed.is_empty();
        let watched = if takes_keys { 3 } else { 2 };
        rustix::io::retry_on_intr(|| poll(&mut polled[..watched], None))?;
        let [shown, stop, keys] = polled.map(|polled| polled.revents());
        if shown.contains(read) {
            match rustix::io::retry_on_intr(|| rustix::io::read(master, &mut buffer[..])) {
                Ok(0) => return Ok(()),
                Ok(length) => write_all(error, &buffer[..length])?,
                Err(Errno::AGAIN) => {}
                // The process and all that had its terminal open are gone.
                Err(errno) => return Err(errno),
            }
        } else if !stop.is_empty() || shown.contains(PollFlags::HUP) {
            return Ok(());
        }
        if shown.contains(write) {
            match rustix::io::retry_on_intr(|| rustix::io::write(master, &typed)) {
                Ok(length) => drop(typed.drain(..length)),
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(errno),
            }
        }
        if takes_keys && !keys.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::read(input, &mut buffer[..])) {
                Ok(length @ 1..) => typed.extend(&buffer[..length]),
                _ => typing = false,
            }
        }
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            // Somebody else has made it so.
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None)),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
