//! Connections: accepted, limited, and ended.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

use crate::app::App;
use crate::{Options, Residency, Served, api, guard, operations};

/// Threads that move bytes. None of them computes.
const IO_THREADS: usize = 2;
/// Threads that read bodies: templates and tokenizers.
const READING_THREADS: usize = 4;
/// Connections at a time; who comes then waits.
const MAX_CONNECTIONS: usize = 1024;
/// Bytes of a request's line and headers, and how many headers.
const MAX_HEADER_BYTES: usize = 32 << 10;
const MAX_HEADERS: usize = 100;
/// How long headers may take to come, on a connection that is idle too.
const HEADER_TIME: Duration = Duration::from_secs(60);

/// Why nothing can be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Everybody could use it.
    #[error(
        "{address} is no address of this machine alone: whoever reaches it could use the model; \
         give --api-key, or --insecure-no-auth if that is meant"
    )]
    Public {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The host has no address, or the port is taken.
    #[error("cannot listen on {host}:{port}: {source}")]
    Listen {
        /// What was asked for.
        host: String,
        /// What was asked for; 0: any that is free.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

/// Takes a port. One that others can reach needs a key, unless `is_open` says that none is wanted.
///
/// # Errors
/// If there is no such address, it is taken, or it needs a key.
pub fn bind(host: &str, port: u16, has_key: bool, is_open: bool) -> Result<TcpListener, BindError> {
    let error = |source| BindError::Listen {
        host: host.to_owned(),
        port,
        source,
    };
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(error)?.collect();
    let public = addresses.iter().find(|address| !address.ip().is_loopback());
    if let Some(address) = public.filter(|_| !has_key && !is_open) {
        return Err(BindError::Public { address: *address });
    }
    TcpListener::bind(addresses.as_slice()).map_err(error)
}

/// Listens on a port with threads of its own.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    runtime: Runtime,
    address: SocketAddr,
    closing: watch::Sender<Option<Duration>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Begins to listen. Until [`Self::serve`], all but health is refused: the model is loading.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(listener: TcpListener, options: Options) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let app = App::new(options, address.ip().is_loopback());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(IO_THREADS)
            .max_blocking_threads(READING_THREADS)
            .thread_name("redline-http")
            .enable_io()
            .enable_time()
            .build()?;
        listener.set_nonblocking(true)?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (closing, closed) = watch::channel(None);
        let accepting = runtime.spawn(accept(listener, routes(&app), closed));
        Ok(Self {
            app,
            runtime,
            address,
            closing,
            accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves a model from now on.
    pub fn serve(&self, served: Served) {
        self.app.serve(served);
    }

    /// Tells from now on, among the metrics, what was seen of the weights.
    pub fn tell_residency(&self, seen: Residency) {
        self.app.metrics.tell_residency(seen);
    }

    /// Takes no new work from now on, and says so where health is asked for.
    pub fn drain(&self) {
        self.app.drain();
    }

    /// Says where health is asked for that the engine is gone.
    pub fn fail(&self) {
        self.app.fail();
    }

    /// Ends all connections, giving answers that are under way so long to be sent.
    pub fn close(self, grace: Duration) {
        let _ = self.closing.send(Some(grace));
        let _ = self.runtime.block_on(self.accepting);
        self.runtime.shutdown_background();
    }
}

/// All routes, behind the one guard.
pub(crate) fn routes(app: &Arc<App>) -> Router {
    let guard = axum::middleware::from_fn_with_state(Arc::clone(app), guard::layer);
    Router::new()
        .route("/v1/chat/completions", post(api::chat))
        .route("/v1/completions", post(api::completions))
        .route("/v1/embeddings", post(api::embeddings))
        .route("/v1/models", get(operations::models))
        .route("/health", get(operations::health))
        .route("/readyz", get(operations::health))
        .route("/ping", get(operations::health))
        .route("/livez", get(operations::livez))
        .route("/version", get(operations::version))
        .route("/server_info", get(operations::server_info))
        .route("/metrics", get(operations::metrics))
        .fallback(operations::not_found)
        .method_not_allowed_fallback(operations::wrong_method)
        .layer(guard)
        .with_state(Arc::clone(app))
}

async fn accept(
    listener: tokio::net::TcpListener,
    routes: Router,
    mut closed: watch::Receiver<Option<Duration>>,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            stream = next(&listener, &room) => stream,
            _ = closed.changed() => break,
        };
        let Ok((stream, permit)) = stream else {
            // Out of descriptors, say: some will be free again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // A token is a packet.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(routes.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .max_buf_size(MAX_HEADER_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // Clients may go as they please.
            let _ = connection.await;
            drop(permit);
        });
    }
    let grace = closed.borrow().unwrap_or_default();
    let _ = tokio::time::timeout(grace, graceful.shutdown()).await;
}

/// The next connection, when there is room for one.
async fn next(
    listener: &tokio::net::TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await;
    let permit = permit.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}
