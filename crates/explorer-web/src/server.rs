//! The server: connections, and when it ends.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use aiv_browse::LuksKeys;
use aiv_explorer_model::Start;
use aiv_jobs::World;
use aiv_keys::Keys;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::download::{DOWNLOADS_MAX, PATIENCE};
use crate::guard::{Guard, SECRET_BYTES};
use crate::hub::{Hub, Unlock};
use crate::patient::Patient;
use crate::routes::{Served, router};

/// Connections at a time: a browser opens six.
const CONNECTIONS_MAX: usize = 32;
/// Headers of a request, and bytes of all of them with the address.
const HEADERS_MAX: usize = 48;
const HEAD_MAX: usize = 32 << 10;
/// How long the head of a request may take, and a connection do nothing.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How often the stop button is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long answers may take that are on their way at the end.
const GRACE: Duration = Duration::from_secs(1);
/// Threads for what waits for a disk: downloads, and a passphrase that is tried.
const THREADS_MAX: usize = DOWNLOADS_MAX + 2;

/// What an explorer in a browser is made of.
pub struct Setup {
    /// What it shows.
    pub start: Start,
    /// Where sources and the time are.
    pub world: Arc<dyn World + Send + Sync>,
    /// Keys that are known already.
    pub keys: Keys,
    /// What may open encrypted volumes inside of disks.
    pub luks: LuksKeys,
    /// From a passphrase to more of them.
    pub unlock: Unlock,
    /// Random bytes that nobody else knows.
    pub secret: [u8; SECRET_BYTES],
    /// The port to listen on; 0 for any that is free.
    pub port: u16,
}

/// An explorer that waits for a browser.
pub struct Web {
    runtime: Runtime,
    listener: tokio::net::TcpListener,
    served: Arc<Served>,
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The user left.
    Left,
    /// The stop button was pressed.
    Stopped,
    /// The thread that does the work is gone.
    Lost,
}

impl Web {
    /// Listens on loopback, and begins to look at what there is.
    ///
    /// # Errors
    /// When the port is taken, or the system has no room.
    pub fn new(setup: Setup) -> io::Result<Self> {
        let Setup { start, world, keys, luks, unlock, secret, port } = setup;
        let mut runtime = Builder::new_current_thread();
        let runtime =
            runtime.enable_io().enable_time().max_blocking_threads(THREADS_MAX).build()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let guard = Guard::new(&secret, listener.local_addr()?.port());
        let inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        drop(inside);
        let hub = Arc::new(Hub::new(start, world, (keys, luks), unlock));
        Ok(Self { runtime, listener, served: Arc::new(Served::new(guard, hub)) })
    }

    /// The address to open, which works once.
    #[must_use]
    pub fn address(&self) -> String {
        self.served.guard.address()
    }

    /// Answers until the user leaves, or `stop` says so.
    pub fn serve(self, stop: &dyn Fn() -> bool) -> Ended {
        let Self { runtime, listener, served } = self;
        let hub = Arc::clone(&served.hub);
        let ended = runtime.block_on(async {
            let (last, ending) = watch::channel(());
            let mut connections = JoinSet::new();
            let ended = tokio::select! {
                () = accept(listener, served, &ending, &mut connections) => Ended::Lost,
                is_left = hub.run() => if is_left { Ended::Left } else { Ended::Lost },
                () = pressed(stop) => Ended::Stopped,
            };
            hub.end();
            drop(ending);
            let _ = last.send(());
            let all = async { while connections.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(GRACE, all).await;
            // Downloads that are not done end with their connections.
            connections.shutdown().await;
            ended
        });
        runtime.shutdown_timeout(GRACE);
        ended
    }
}

async fn pressed(stop: &dyn Fn() -> bool) {
    while !stop() {
        tokio::time::sleep(TICK).await;
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    served: Arc<Served>,
    ending: &watch::Receiver<()>,
    connections: &mut JoinSet<()>,
) {
    let router = router(served);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // No room for another one: some end.
            tokio::time::sleep(TICK).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let mut ending = ending.clone();
        connections.spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .max_headers(HEADERS_MAX)
                .max_buf_size(HEAD_MAX)
                .serve_connection(TokioIo::new(Patient::new(stream, PATIENCE)), service);
            tokio::pin!(connection);
            tokio::select! {
                // A connection that breaks is the matter of whoever was at its other end.
                _ = connection.as_mut() => {}
                _ = ending.changed() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
            drop(permit);
        });
    }
}
