//! A server of our own, and a client that does no more than HTTP/1.1 asks.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running `redline serve`, which ends with this.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Serves `model` with some flags, and waits until it is ready.
    pub(crate) fn start(model: &Path, flags: &[&str]) -> Self {
        Self::start_hearing(model, flags).0
    }

    /// The same, and what it says until then.
    pub(crate) fn start_hearing(model: &Path, flags: &[&str]) -> (Self, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_redline"))
            .args(["serve", "--port", "0", "--name", "m"])
            .arg(model)
            .args(flags)
            .env_remove("REDLINE_API_KEY")
            .env_remove("REDLINE_CONTEXT_TOKENS")
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let (mut line, mut all) = (String::new(), String::new());
        let address = loop {
            line.clear();
            assert!(
                said.read_line(&mut line).unwrap() > 0,
                "it ended before it was ready"
            );
            if let Some(address) = line.trim().strip_prefix("ready on http://") {
                break address.to_owned();
            }
            all.push_str(&line);
        };
        // Nobody else reads what it says.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        (Self { child, address }, all)
    }

    /// Sends a request; its answer is read as far as its headers.
    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> Reply {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(600)))
            .unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        Reply::read(stream)
    }

    /// The status and JSON of an answer.
    pub(crate) fn ask(&self, path: &str, body: &Value) -> (u16, Value) {
        let reply = self.send("POST", path, &body.to_string());
        let status = reply.status;
        let text = reply.text();
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (status, value)
    }

    /// A number of the metrics page.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.send("GET", "/metrics", "").text();
        let start = format!("{name}{{");
        let line = page.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("no {name} in {page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// A number of kilobytes that the system knows of the process (proc_pid_status(5)).
    #[cfg(target_os = "linux")]
    pub(crate) fn kilobytes(&self, name: &str) -> u64 {
        redline_testkit::kilobytes(self.child.id(), name)
    }

    /// How long until `is_so`, at most a minute.
    pub(crate) fn until(&self, is_so: impl Fn(&Self) -> bool) -> Duration {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < Duration::from_secs(60), "it never was");
            std::thread::sleep(Duration::from_millis(2));
        }
        start.elapsed()
    }

    /// Asks the process to end, as a supervisor does.
    pub(crate) fn terminate(&self) {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(killed.success());
    }

    /// Its exit code, once it has ended.
    pub(crate) fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer whose body is still to be read.
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<String>,
    body: Box<dyn Read>,
}

impl Reply {
    fn read(stream: TcpStream) -> Self {
        let mut stream = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            line.trim_end().to_lowercase()
        };
        let status = line().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            match line() {
                end if end.is_empty() => break,
                header => headers.push(header),
            }
        }
        let is_chunked = headers
            .iter()
            .any(|header| header == "transfer-encoding: chunked");
        let body: Box<dyn Read> = match is_chunked {
            true => Box::new(Chunks { stream, left: 0 }),
            false => Box::new(stream),
        };
        Self {
            status,
            headers,
            body,
        }
    }

    pub(crate) fn has_header(&self, name: &str) -> bool {
        let start = format!("{name}: ");
        self.headers.iter().any(|header| header.starts_with(&start))
    }

    pub(crate) fn text(mut self) -> String {
        let mut text = String::new();
        self.body.read_to_string(&mut text).unwrap();
        text
    }

    /// The data of each event as it comes, without the comments between them.
    pub(crate) fn events(self) -> impl Iterator<Item = String> {
        let lines = BufReader::new(self.body).lines().map_while(Result::ok);
        lines.filter_map(|line| line.strip_prefix("data: ").map(str::to_owned))
    }
}

/// A body in chunks.
struct Chunks {
    stream: BufReader<TcpStream>,
    left: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            let mut line = String::new();
            // After a chunk there is an empty line.
            while line.trim().is_empty() {
                line.clear();
                if self.stream.read_line(&mut line)? == 0 {
                    return Ok(0);
                }
            }
            self.left = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            if self.left == 0 {
                return Ok(0);
            }
        }
        let most = buffer.len().min(self.left);
        let count = self.stream.read(&mut buffer[..most])?;
        self.left -= count;
        Ok(count)
    }
}
