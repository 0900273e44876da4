//! The chat, on a pseudo-terminal made by `script` (util-linux).
#![cfg(target_os = "linux")]

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use redline_testkit::{SMOLLM2, cache_dir, cached};

use crate::support::{program, shared_cache};

/// Far beyond what any step takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(120);

/// A chat on a terminal.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn start(cache: &std::path::Path, arguments: &[&str]) -> Self {
        let plain = program(cache);
        let line = format!(
            "exec {} run {}",
            plain.get_program().display(),
            arguments.join(" ")
        );
        let mut command = Command::new("script");
        command.args([
            "--quiet",
            "--return",
            "--flush",
            "--command",
            &line,
            "/dev/null",
        ]);
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let keys = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (sender, screen) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            keys,
            screen,
            seen: String::new(),
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits until `text` is on the screen; takes everything up to and with it off.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> String {
        self.wait_until(text, |screen| Some(screen.find(text)? + text.len()))
    }

    /// Waits until `end` finds the end of what is wanted on the screen.
    #[track_caller]
    fn wait_until(&mut self, what: &str, end: impl Fn(&str) -> Option<usize>) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = end(&self.seen) {
                let rest = self.seen.split_off(end);
                return std::mem::replace(&mut self.seen, rest);
            }
            match self
                .screen
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let _ = self.child.kill();
                    panic!("{what:?} never came; the screen shows {:?}", self.seen);
                }
            }
        }
    }

    /// Waits until the chat reads keys: what is typed earlier is lost as the terminal changes modes.
    #[track_caller]
    fn wait_for_prompt(&mut self) {
        // Bracketed paste is switched on after the mode is changed, before the prompt is shown.
        self.wait_for("\u{1b}[?2004h");
        self.wait_for("> ");
    }

    /// Says a line to a chat that waits for one, and waits for the end of the answer.
    #[track_caller]
    fn ask(&mut self, line: &str) -> String {
        self.wait_for_prompt();
        self.press(line);
        self.press("\r");
        self.wait_for("ended by ")
    }

    /// Presses keys that end the chat.
    #[track_caller]
    fn leave(mut self, keys: &str) -> Option<i32> {
        self.wait_for_prompt();
        self.press(keys);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the chat never ends");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number in `(12 cached)`.
#[track_caller]
fn cached_tokens(stats: &str) -> usize {
    let (before, _) = stats.split_once(" cached)").unwrap();
    before.rsplit('(').next().unwrap().parse().unwrap()
}

#[test]
fn a_chat_obeys_its_commands_and_ends_well() {
    let arguments = [
        "synth:tiny-llama",
        "--raw",
        "--temperature",
        "0",
        "-n",
        "4",
        "--stats",
    ];
    let mut terminal = Terminal::start(shared_cache(), &arguments);
    terminal.wait_for("/help for help");
    let first = terminal.ask("hello world");
    assert_eq!(cached_tokens(&first), 0, "{first:?}");
    let second = terminal.ask("and more");
    assert!(cached_tokens(&second) > 8, "{second:?}");
    for (command, reply) in [
        ("/help\r", "goes on in the next one"),
        ("/nonsense\r", "no command /nonsense"),
        ("/reset\r", "the conversation is forgotten"),
    ] {
        terminal.wait_for_prompt();
        terminal.press(command);
        terminal.wait_for(reply);
    }
    terminal.wait_for_prompt();
    terminal.press("two \\\r");
    terminal.wait_for("… ");
    terminal.press("lines\r");
    // Nothing of the old conversation is in the prompt; only the beginning of text is the same.
    let after_reset = terminal.wait_for("ended by ");
    assert!(cached_tokens(&after_reset) <= 1, "{after_reset:?}");
    assert_eq!(terminal.leave("/exit\r"), Some(0));
}

#[test]
fn ctrl_c_ends_the_answer_and_ctrl_d_the_chat() {
    let slow = ["--isa", "scalar", "-t", "1", "-n", "480", "--ignore-eos"];
    let arguments = [&["synth:tiny-llama", "--raw", "--stats"] as &[&str], &slow].concat();
    let mut terminal = Terminal::start(shared_cache(), &arguments);
    terminal.wait_for_prompt();
    terminal.press("hello\r");
    // Bracketed paste is switched off where the line ends; then the answer begins.
    terminal.wait_for("\u{1b}[?2004l");
    terminal.wait_until("an answer", |screen| {
        screen.char_indices().nth(16).map(|(at, _)| at)
    });
    terminal.press("\u{3}");
    terminal.wait_for("ended by cancelled");
    assert_eq!(terminal.leave("\u{4}"), Some(0));
}

#[test]
fn a_line_too_long_for_the_context_is_told_and_taken_back() {
    let small = [
        "--temperature",
        "0",
        "-n",
        "4",
        "--context",
        "64",
        "--stats",
    ];
    let arguments = [&["synth:tiny-llama", "--raw"] as &[&str], &small].concat();
    let mut terminal = Terminal::start(shared_cache(), &arguments);
    terminal.wait_for("context of 64 tokens");
    terminal.wait_for_prompt();
    terminal.press(&format!("{}\r", "word ".repeat(60)));
    terminal.wait_for("context length exceeded");
    terminal.ask("hi");
    assert_eq!(terminal.leave("\u{4}"), Some(0));
}

#[test]
fn smollm2_remembers_the_conversation() {
    let Some(_) = cached(SMOLLM2) else { return };
    let cache = cache_dir().unwrap();
    let arguments = ["smollm2-135m", "--temperature", "0", "-n", "16", "--stats"];
    let mut terminal = Terminal::start(&cache, &arguments);
    terminal.ask("My name is Ada.");
    let second = terminal.ask("What is my name?");
    assert!(cached_tokens(&second) > 30, "{second:?}");
    assert_eq!(terminal.leave("/exit\r"), Some(0));
}
