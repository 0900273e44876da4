//! `hf:` and URL downloads against a server of our own.

use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use crate::server::{Reply, Request, Server};
use crate::support::{Outcome, empty_cache, files, finish, program};

const NAME: &str = "hf:owner/repo/model.gguf";
const CACHED: &str = "models/hf/owner/repo/model.gguf";

fn body() -> Vec<u8> {
    (0..300_000_u32)
        .map(|index| (index * 7 % 251) as u8)
        .collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn pull(server: &Server, cache: &Path, name: &str) -> Outcome {
    finish(
        program(cache)
            .env("REDLINE_HF_ENDPOINT", server.url())
            .args(["pull", name, "--json"]),
    )
}

#[track_caller]
fn check_whole(outcome: &Outcome, cache: &Path, verified: bool) {
    let json = outcome.json();
    assert_eq!(json["bytes"], body().len());
    assert_eq!(json["sha256"], sha256(&body()));
    assert_eq!(json["verified"], verified);
    assert_eq!(json["cached"], false);
    assert_eq!(std::fs::read(cache.join(CACHED)).unwrap(), body());
    let left: Vec<String> = files(cache)
        .into_iter()
        .filter(|name| name.contains(".part"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn a_checksum_in_the_redirect_is_verified_and_the_second_pull_fetches_nothing() {
    let storage = Server::start(|request, _| Reply::ranged(request, &body()));
    let location = format!("{}/storage/blob", storage.url());
    let hub = Server::start(move |_, _| {
        Reply::redirect(&location).header("X-Linked-ETag", &format!("\"{}\"", sha256(&body())))
    });
    let cache = empty_cache();
    check_whole(&pull(&hub, cache.path(), NAME), cache.path(), true);
    assert_eq!(
        hub.requests()[0].path,
        "/owner/repo/resolve/main/model.gguf"
    );
    let again = pull(&hub, cache.path(), NAME).json();
    assert_eq!(
        (&again["cached"], &again["verified"]),
        (&true.into(), &true.into())
    );
    assert_eq!((hub.requests().len(), storage.requests().len()), (1, 1));
}

#[test]
fn a_token_goes_to_the_hub_and_never_to_the_storage() {
    let storage = Server::start(|request, _| Reply::ranged(request, &body()));
    let location = storage.url() + "/blob";
    let hub = Server::start(move |_, _| Reply::redirect(&location));
    let cache = empty_cache();
    let outcome = finish(
        program(cache.path())
            .env("REDLINE_HF_ENDPOINT", hub.url())
            .env("HF_TOKEN", "s3cret")
            .args(["pull", NAME, "--json"]),
    );
    check_whole(&outcome, cache.path(), false);
    assert_eq!(
        hub.requests()[0].header("authorization"),
        Some("Bearer s3cret")
    );
    assert_eq!(storage.requests()[0].header("authorization"), None);
    assert!(!outcome.stderr.contains("s3cret"));
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_was() {
    let server = Server::start(|request, number| {
        let reply = Reply::ranged(request, &body()).header("ETag", "\"v1\"");
        if number < 2 {
            reply.cut_after(100_000)
        } else {
            reply
        }
    });
    let cache = empty_cache();
    check_whole(&pull(&server, cache.path(), NAME), cache.path(), false);
    let starts: Vec<_> = server.requests().iter().map(Request::range_start).collect();
    assert_eq!(starts, [None, Some(100_000), Some(200_000)]);
    assert_eq!(server.requests()[1].header("if-range"), Some("\"v1\""));
}

#[test]
fn a_download_given_up_is_resumed_by_the_next_run() {
    let working = Arc::new(Mutex::new(false));
    let works = Arc::clone(&working);
    let server = Server::start(move |request, number| {
        let reply = Reply::ranged(request, &body()).header("ETag", "\"v1\"");
        match (number, *works.lock().unwrap()) {
            (0, _) => reply.cut_after(123_456),
            (_, false) => Reply::status(503),
            (_, true) => reply,
        }
    });
    let cache = empty_cache();
    pull(&server, cache.path(), NAME).fails(1, &["gave up", "120.6 KiB are kept", "503"]);
    assert!(!cache.path().join(CACHED).exists());
    *working.lock().unwrap() = true;
    let before = server.requests().len();
    check_whole(&pull(&server, cache.path(), NAME), cache.path(), false);
    let requests = server.requests();
    assert_eq!(requests.len(), before + 1);
    assert_eq!(requests[before].range_start(), Some(123_456));
}

#[test]
fn a_file_that_changed_on_the_server_is_fetched_anew() {
    let server = Server::start(|request, number| match number {
        0 => Reply::ok(&vec![1; body().len()])
            .header("ETag", "\"old\"")
            .cut_after(100_000),
        // If-Range names the old tag: the whole new file is the answer.
        _ => {
            assert_eq!(request.header("if-range"), Some("\"old\""));
            Reply::ok(&body()).header("ETag", "\"new\"")
        }
    });
    let cache = empty_cache();
    check_whole(&pull(&server, cache.path(), NAME), cache.path(), false);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_server_that_ignores_if_range_and_sends_another_file_is_found_out() {
    let server = Server::start(|request, number| match number {
        0 => Reply::ok(&body()[..200_000])
            .header("ETag", "\"old\"")
            .cut_after(100_000),
        _ => Reply::ranged(request, &body()).header("ETag", "\"new\""),
    });
    let cache = empty_cache();
    let outcome = pull(&server, cache.path(), NAME);
    check_whole(&outcome, cache.path(), false);
    assert!(
        outcome.stderr.contains("has changed on the server"),
        "{outcome:?}"
    );
}

#[test]
fn bytes_without_an_identity_are_never_continued() {
    let server = Server::start(|request, number| {
        let reply = Reply::ranged(request, &body());
        if number == 0 {
            reply.cut_after(100_000)
        } else {
            reply
        }
    });
    let cache = empty_cache();
    check_whole(&pull(&server, cache.path(), NAME), cache.path(), false);
    assert_eq!(server.requests()[1].range_start(), None);
}

#[test]
fn a_wrong_checksum_is_refused_and_leaves_nothing() {
    let server = Server::start(|request, _| {
        Reply::ranged(request, &body()).header("X-Linked-ETag", &format!("\"{}\"", "0".repeat(64)))
    });
    let cache = empty_cache();
    let outcome = pull(&server, cache.path(), NAME);
    outcome.fails(
        1,
        &[
            "damaged",
            &format!("expected SHA-256 {}", "0".repeat(64)),
            &sha256(&body()),
        ],
    );
    assert_eq!(files(cache.path()), Vec::<String>::new());
}

#[test]
fn refusals_are_told_apart() {
    for (status, expected) in [
        (404, "not found (404)"),
        (401, "HF_TOKEN"),
        (403, "HF_TOKEN"),
        (418, "418"),
    ] {
        let server = Server::start(move |_, _| Reply::status(status));
        pull(&server, empty_cache().path(), NAME)
            .fails(1, &["cannot pull hf:owner/repo/model.gguf", expected]);
        assert_eq!(server.requests().len(), 1, "{status}");
    }
    let server = Server::start(|request, _| Reply::redirect(&request.path));
    pull(&server, empty_cache().path(), NAME).fails(1, &["redirects"]);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let outcome = finish(
        program(empty_cache().path())
            .env("HF_ENDPOINT", format!("http://{nobody}"))
            .args(["pull", NAME]),
    );
    outcome.fails(1, &["cannot reach", &nobody.to_string()]);
}

#[test]
fn all_files_of_a_split_model_come() {
    let server = Server::start(|request, _| Reply::ok(request.path.as_bytes()));
    let cache = empty_cache();
    let json = pull(&server, cache.path(), "hf:o/r/m-00001-of-00003.gguf").json();
    assert!(
        json["path"]
            .as_str()
            .unwrap()
            .ends_with("m-00001-of-00003.gguf")
    );
    let expected: Vec<String> = (1..=3)
        .map(|index| format!("models/hf/o/r/m-0000{index}-of-00003.gguf"))
        .collect();
    assert_eq!(files(cache.path()), expected);
    assert_eq!(
        server.requests()[2].path,
        "/o/r/resolve/main/m-00003-of-00003.gguf"
    );
}

#[test]
fn a_plain_url_is_fetched_and_its_checksum_told() {
    let server = Server::start(|_, _| Reply::ok(b"GGUF or not"));
    let cache = empty_cache();
    let url = server.url() + "/files/m.gguf?download=1";
    let outcome = finish(program(cache.path()).args(["pull", &url]));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome.stderr.contains(&sha256(b"GGUF or not")),
        "{outcome:?}"
    );
    let path = Path::new(outcome.stdout.trim());
    assert_eq!(std::fs::read(path).unwrap(), b"GGUF or not");
    assert!(path.ends_with("files/m.gguf"), "{path:?}");
}

#[test]
fn two_downloads_of_one_file_do_not_mix() {
    let cache = empty_cache();
    let part = cache.path().join(CACHED.to_owned() + ".part");
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    let other = std::fs::File::create(&part).unwrap();
    other.lock().unwrap();
    let server = Server::start(|_, _| Reply::ok(b"x"));
    pull(&server, cache.path(), NAME).fails(1, &["is being downloaded by another process"]);
    assert_eq!(server.requests().len(), 0);
}
