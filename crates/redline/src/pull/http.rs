//! Downloads over HTTP that go on where they were cut.
//!
//! A Hugging Face server names the SHA-256 (`X-Linked-ETag`) and size (`X-Linked-Size`) of a large
//! file in the redirect to its storage; so redirects are followed here, one by one.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use ureq::http::{HeaderMap, Response, StatusCode, Uri};
use ureq::{Agent, Body};

use super::file::{Identity, PartFile};
use super::{Pulled, Source, create_parent};
use crate::commands::Context;
use crate::interrupt::Interrupt;
use crate::models::cache;
use crate::output;
use crate::progress::Progress;
use crate::units;

/// Tries in a row that bring nothing before giving up.
const FRUITLESS_ATTEMPTS: u32 = 4;
/// Pause after the first of them; doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Redirects followed for one file.
const REDIRECTS: usize = 8;

/// Why an attempt ended early.
enum Stop {
    /// Trying again may help.
    Again(anyhow::Error),
    /// It will not.
    Fatal(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Fatal(error)
    }
}

/// Fetches one file to `target`, which does not exist yet.
///
/// # Errors
/// If the server refuses, the connection fails for good, or the file is not what was announced.
pub(super) fn pull_file(
    source: &Source,
    target: PathBuf,
    context: &Context,
) -> anyhow::Result<Pulled> {
    create_parent(&target)?;
    let mut part = PartFile::open(&target)?;
    let url = source.url(&context.config.hf_endpoint);
    let token = match source {
        Source::Hf { .. } => context.config.hf_token.as_deref(),
        _ => None,
    };
    let download = Download {
        agent: agent(),
        url: &url,
        token,
        interrupt: &context.interrupt,
    };
    let identity = download.whole(&mut part)?;
    if let Some(total) = identity.total.filter(|total| *total != part.len()) {
        let found = part.len();
        part.discard();
        bail!("{url}: expected {total} bytes, found {found}");
    }
    let label = format!("checking {source}");
    let sha256 = cache::file_sha256(part.path(), Some(&label))?;
    if let Some(expected) = &identity.sha256
        && let Err(error) = cache::check_sha256(&target, expected, &sha256)
    {
        part.discard();
        return Err(error.context("the download is damaged and was removed"));
    }
    let bytes = part.len();
    let path = part.finish()?;
    let verified = identity.sha256.is_some();
    if verified {
        cache::note_checksum(&path, &sha256);
    } else {
        output::note(&format!(
            "the server gives no checksum to verify; SHA-256 is {sha256}"
        ));
    }
    Ok(Pulled {
        path,
        bytes,
        sha256,
        verified,
        cached: false,
    })
}

fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .user_agent(concat!("redline/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

struct Download<'a> {
    agent: Agent,
    url: &'a str,
    token: Option<&'a str>,
    interrupt: &'a Interrupt,
}

impl Download<'_> {
    /// Adds to `part` until the file is whole.
    fn whole(&self, part: &mut PartFile) -> anyhow::Result<Identity> {
        let mut fruitless = 0;
        loop {
            let before = part.len();
            let error = match self.attempt(part) {
                Ok(identity) => return Ok(identity),
                Err(Stop::Fatal(error)) => return Err(error),
                Err(Stop::Again(error)) => error,
            };
            fruitless = if part.len() > before {
                1
            } else {
                fruitless + 1
            };
            if fruitless == FRUITLESS_ATTEMPTS {
                let kept = units::bytes(part.len());
                return Err(error.context(format!(
                    "gave up; {kept} are kept, the same command goes on from there"
                )));
            }
            output::note(&format!("{error:#}; trying again"));
            self.pause(FIRST_PAUSE * 2_u32.pow(fruitless - 1), part)?;
        }
    }

    /// One connection: as many bytes as it brings.
    fn attempt(&self, part: &mut PartFile) -> Result<Identity, Stop> {
        // Without something to recognise the file by, old bytes may belong to another one.
        let known = part.identity().filter(|known| {
            part.len() > 0
                && known.url == self.url
                && (known.etag.is_some() || known.sha256.is_some())
        });
        let (response, linked_sha256) = self.follow_redirects(known.as_ref(), part.len())?;
        let headers = response.headers();
        let status = response.status();
        let identity = match (status, known) {
            (StatusCode::OK, _) => {
                let total = header(headers, "content-length").and_then(|text| text.parse().ok());
                let etag = header(headers, "etag")
                    .filter(|tag| !tag.starts_with("W/"))
                    .map(str::to_owned);
                let identity = Identity {
                    url: self.url.to_owned(),
                    etag,
                    total,
                    sha256: linked_sha256,
                };
                part.restart(&identity)?;
                identity
            }
            (StatusCode::PARTIAL_CONTENT, Some(known)) => {
                let expected = (part.len(), known.total);
                let same = linked_sha256.is_none() || linked_sha256 == known.sha256;
                if !same || content_range(headers).is_none_or(|found| found != expected) {
                    return Err(changed(part, self.url));
                }
                known
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(known)) => {
                if known.total != Some(part.len()) {
                    return Err(changed(part, self.url));
                }
                return Ok(known);
            }
            _ => return Err(self.refused(status)),
        };
        self.copy(response, &identity, part)?;
        Ok(identity)
    }

    /// The answer behind all redirects, and the SHA-256 named on the way.
    fn follow_redirects(
        &self,
        known: Option<&Identity>,
        have: u64,
    ) -> Result<(Response<Body>, Option<String>), Stop> {
        let mut url = self.url.to_owned();
        let mut sha256 = None;
        for _ in 0..=REDIRECTS {
            let mut request = self.agent.get(&url).header("accept-encoding", "identity");
            if let Some(known) = known {
                request = request.header("range", format!("bytes={have}-"));
                if let Some(etag) = &known.etag {
                    request = request.header("if-range", etag);
                }
            }
            // The token is for the server it was made for, not for the storage behind it.
            if let Some(token) = self.token.filter(|_| same_host(&url, self.url)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let response = request
                .call()
                .map_err(|error| connection_failed(&url, error))?;
            sha256 = sha256.or_else(|| linked_sha256(response.headers()));
            if !response.status().is_redirection() {
                return Ok((response, sha256));
            }
            url = redirect_target(&url, header(response.headers(), "location"))?;
        }
        Err(Stop::Fatal(anyhow!(
            "{}: more than {REDIRECTS} redirects",
            self.url
        )))
    }

    fn copy(
        &self,
        response: Response<Body>,
        identity: &Identity,
        part: &mut PartFile,
    ) -> Result<(), Stop> {
        let name = self.url.rsplit('/').next().unwrap_or(self.url);
        let mut progress = Progress::bytes(name, identity.total);
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        let result = loop {
            if self.interrupt.asked() {
                break Err(Stop::Fatal(interrupted(part)));
            }
            match reader.read(&mut buffer) {
                Ok(0) => break self.ended(identity, part),
                Ok(count) => part.append(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let at = format!("{}: cut after {} bytes", self.url, part.len());
                    break Err(Stop::Again(anyhow::Error::new(error).context(at)));
                }
            }
            if identity.total.is_some_and(|total| part.len() > total) {
                break Err(Stop::Fatal(anyhow!(
                    "{}: the server sends more than it announced",
                    self.url
                )));
            }
            progress.set(part.len());
        };
        progress.clear();
        result
    }

    fn ended(&self, identity: &Identity, part: &PartFile) -> Result<(), Stop> {
        match identity.total {
            Some(total) if part.len() < total => Err(Stop::Again(anyhow!(
                "{}: cut after {} of {total} bytes",
                self.url,
                part.len()
            ))),
            _ => Ok(()),
        }
    }

    fn refused(&self, status: StatusCode) -> Stop {
        let url = self.url;
        match status {
            StatusCode::NOT_FOUND => Stop::Fatal(anyhow!(
                "{url}: not found (404); check owner, repository and file"
            )),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Stop::Fatal(anyhow!(
                "{url}: the server refuses ({}); a model behind a licence needs HF_TOKEN in the environment",
                status.as_u16()
            )),
            StatusCode::TOO_MANY_REQUESTS => Stop::Again(anyhow!("{url}: too many requests (429)")),
            _ if status.is_server_error() => {
                Stop::Again(anyhow!("{url}: the server failed ({status})"))
            }
            _ => Stop::Fatal(anyhow!("{url}: expected 200 or 206, found {status}")),
        }
    }

    fn pause(&self, length: Duration, part: &PartFile) -> anyhow::Result<()> {
        let end = Instant::now() + length;
        while Instant::now() < end {
            if self.interrupt.asked() {
                return Err(interrupted(part));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn interrupted(part: &PartFile) -> anyhow::Error {
    anyhow!(
        "interrupted; {} are kept, the same command goes on from there",
        units::bytes(part.len())
    )
}

/// The bytes so far belong to something that is no longer there.
fn changed(part: &mut PartFile, url: &str) -> Stop {
    let nothing = Identity {
        url: String::new(),
        etag: None,
        total: None,
        sha256: None,
    };
    match part.restart(&nothing) {
        Ok(()) => Stop::Again(anyhow!(
            "{url}: the file has changed on the server; starting over"
        )),
        Err(error) => Stop::Fatal(error),
    }
}

fn connection_failed(url: &str, error: ureq::Error) -> Stop {
    let again = matches!(
        error,
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed
    );
    let error = Err::<(), _>(error)
        .with_context(|| format!("cannot reach {}", host(url).unwrap_or(url)))
        .expect_err("it is an error");
    if again {
        Stop::Again(error)
    } else {
        Stop::Fatal(error)
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// `X-Linked-ETag: "<sha256>"`; for small files it holds another kind of hash.
fn linked_sha256(headers: &HeaderMap) -> Option<String> {
    let tag = header(headers, "x-linked-etag")?
        .trim_start_matches("W/")
        .trim_matches('"');
    let is_sha256 = tag.len() == 64 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_sha256.then(|| tag.to_ascii_lowercase())
}

/// Start and total of `Content-Range: bytes 5-9/10` (RFC 9110, 14.4).
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) = header(headers, "content-range")?
        .strip_prefix("bytes ")?
        .split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()))
}

fn host(url: &str) -> Option<&str> {
    url.split_once("://")?.1.split('/').next()
}

fn same_host(one: &str, other: &str) -> bool {
    host(one).is_some()
        && host(one) == host(other)
        && one.split(':').next() == other.split(':').next()
}

/// Where a redirect from `url` leads: an absolute URL or an absolute path, never from TLS to plain.
fn redirect_target(url: &str, location: Option<&str>) -> anyhow::Result<String> {
    let location = location.with_context(|| format!("{url}: a redirect to nowhere"))?;
    let target = match location.strip_prefix('/') {
        Some(_) => {
            let base: Uri = url.parse().with_context(|| format!("{url}: not a URL"))?;
            let scheme = base.scheme_str().unwrap_or("https");
            format!("{scheme}://{}{location}", host(url).unwrap_or_default())
        }
        None => location.to_owned(),
    };
    let plain = target.starts_with("http://");
    if !(target.starts_with("https://") || plain && url.starts_with("http://")) {
        bail!("{url}: refused to follow a redirect to {target}");
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_never_leave_tls() {
        let target = |url, location| redirect_target(url, Some(location)).ok();
        assert_eq!(target("https://a/x", "/y").as_deref(), Some("https://a/y"));
        assert_eq!(
            target("http://a:1/x", "/y").as_deref(),
            Some("http://a:1/y")
        );
        assert_eq!(
            target("http://a/x", "https://b/y").as_deref(),
            Some("https://b/y")
        );
        assert_eq!(target("https://a/x", "http://a/y"), None);
        assert_eq!(target("https://a/x", "file:///etc/passwd"), None);
        redirect_target("https://a/x", None).unwrap_err();
    }

    #[test]
    fn a_token_stays_with_its_host_and_scheme() {
        assert!(same_host("https://a/x", "https://a/y"));
        assert!(!same_host("https://a/x", "https://a.b/y"));
        assert!(!same_host("https://a:444/x", "https://a/y"));
        assert!(!same_host("http://a/x", "https://a/y"));
    }

    #[test]
    fn headers_are_read_strictly() {
        let headers = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            headers
        };
        let sha256 = "B179C9523D0E6A0F98A330C7562B682750A6F8C8C15E5BC70EA373728110DB53";
        assert_eq!(
            linked_sha256(&headers("x-linked-etag", &format!("\"{sha256}\""))),
            Some(sha256.to_lowercase())
        );
        assert_eq!(
            linked_sha256(&headers(
                "x-linked-etag",
                "\"0123456789abcdef0123456789abcdef01234567\""
            )),
            None
        );
        assert_eq!(
            content_range(&headers("content-range", "bytes 5-9/10")),
            Some((5, Some(10)))
        );
        assert_eq!(
            content_range(&headers("content-range", "bytes 5-9/*")),
            Some((5, None))
        );
        assert_eq!(content_range(&headers("content-range", "bytes */10")), None);
    }
}
