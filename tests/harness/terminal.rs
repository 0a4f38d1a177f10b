//! A program on a terminal: a pty whose other end the test reads and types on.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Whoever says nothing for longer hangs.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A running program and its terminal.
pub struct Terminal {
    master: OwnedFd,
    /// Kept open, so that what was written last can be read, and modes can be asked, when the program has ended.
    slave: OwnedFd,
    child: Child,
    seen: String,
    /// How much of it has been waited for.
    read: usize,
}

impl Terminal {
    /// Starts it with the terminal as its streams. `command` is to be one of `setsid --ctty PROGRAM…`, which makes the
    /// terminal that of its session.
    pub fn start(mut command: Command) -> Terminal {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let master = master.expect("make a pty");
        rustix::pty::unlockpt(&master).expect("unlock the pty");
        let path = rustix::pty::ptsname(&master, vec![]).expect("name of the pty");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(path.as_c_str(), flags, Mode::empty()).expect("open the pty");
        let copy = || Stdio::from(slave.try_clone().expect("duplicate the terminal"));
        command.stdin(copy()).stdout(copy()).stderr(copy()).env("TERM", "xterm");
        let child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let terminal = Terminal { master, slave, child, seen: String::new(), read: 0 };
        terminal.resize(100, 40);
        terminal
    }

    /// Sets its size in columns and rows.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("set the size of the terminal");
    }

    /// Reads until `text` is shown, after what was waited for before; panics if it does not come.
    pub fn wait_for(&mut self, text: &str) -> &mut Terminal {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen[self.read..].find(text) {
                self.read += at + text.len();
                return self;
            }
            let ended = self.child.try_wait().expect("ask for the program").is_some();
            let more = self.read_more();
            assert!(more || !ended, "{text:?} never came:\n{}", self.seen);
            assert!(start.elapsed() < TIMEOUT, "{text:?} does not come:\n{}", self.seen);
        }
    }

    /// Types.
    pub fn send(&mut self, text: &str) -> &mut Terminal {
        rustix::io::write(&self.master, text.as_bytes()).expect("type");
        self
    }

    /// Sends the program a signal.
    pub fn kill(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("send a signal");
    }

    /// Whether what is typed is shown and can be edited, as a shell expects to find it.
    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("ask the terminal").local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Waits for its end; gives also all that was shown.
    pub fn end(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("ask for the program") {
                break status;
            }
            self.read_more();
            if start.elapsed() > TIMEOUT {
                let _ = self.child.kill();
                panic!("it does not end:\n{}", self.seen);
            }
        };
        while self.read_more() {}
        assert!(self.is_cooked(), "the terminal is left in raw mode");
        (status, self.seen)
    }

    /// Reads what comes within a tenth of a second; whether something did.
    fn read_more(&mut self) -> bool {
        let mut ready = [PollFd::from_borrowed_fd(self.master.as_fd(), PollFlags::IN)];
        let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        if poll(&mut ready, Some(&wait)).unwrap_or(0) == 0 {
            return false;
        }
        let mut buffer = [0; 4096];
        let length = rustix::io::read(&self.master, &mut buffer[..]).unwrap_or(0);
        self.seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        length > 0
    }
}
