//! For tests: an HTTP server on loopback that is down, slow, refuses and comes back, and remembers all it was sent.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// What it does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Takes it, with this status.
    Answer(u16),
    /// Takes it, and does not say so for this time.
    Slow(Duration),
    /// Hangs up once it has read it.
    HangUp,
    /// Says something that is no HTTP.
    Garbage,
    /// Sends headers without end.
    Endless,
}

/// A request that was received.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// The method and the path.
    pub(crate) line: String,
    /// By their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// The server; it ends with this value.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    mood: Mutex<Mood>,
    received: Mutex<Vec<Received>>,
    ending: AtomicBool,
    tls: Option<Arc<ServerConfig>>,
}

/// An address that nobody else gets as long as this lives, and where nobody listens.
pub(crate) struct Deaf {
    pub(crate) address: SocketAddr,
    _bound: OwnedFd,
}

impl Deaf {
    pub(crate) fn new() -> Self {
        let bound = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(bound.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        let port = getsockname::<SockaddrIn>(bound.as_raw_fd()).unwrap().port();
        Self { address: ([127, 0, 0, 1], port).into(), _bound: bound }
    }
}

/// An address where nobody listens yet.
pub(crate) fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Server {
    /// On a free port.
    pub(crate) fn start(mood: Mood) -> Self {
        Self::run("127.0.0.1:0".parse().unwrap(), mood, None)
    }

    /// Where another one was before, or is to be.
    pub(crate) fn start_at(address: SocketAddr, mood: Mood) -> Self {
        Self::run(address, mood, None)
    }

    /// With TLS; its certificate is in tests/fixtures/tls.
    pub(crate) fn start_tls(mood: Mood) -> Self {
        let chain =
            CertificateDer::from_pem_slice(include_bytes!("../../tests/fixtures/tls/server.pem")).unwrap();
        let key =
            PrivateKeyDer::from_pem_slice(include_bytes!("../../tests/fixtures/tls/server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![chain], key).unwrap();
        Self::run("127.0.0.1:0".parse().unwrap(), mood, Some(Arc::new(config)))
    }

    fn run(address: SocketAddr, mood: Mood, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mood: Mutex::new(mood),
            received: Mutex::default(),
            ending: AtomicBool::new(false),
            tls,
        });
        let mine = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if mine.ending.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&mine);
                thread::spawn(move || shared.connection(stream));
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        match self.shared.tls {
            None => format!("http://{}{path}", self.address),
            // The name that the certificate is for.
            Some(_) => format!("https://localhost:{}{path}", self.address.port()),
        }
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }

    /// All it was sent, in order.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

impl Shared {
    fn connection(&self, stream: TcpStream) {
        match &self.tls {
            None => self.request(stream),
            Some(config) => {
                let session = ServerConnection::new(Arc::clone(config)).unwrap();
                self.request(StreamOwned::new(session, stream));
            }
        }
    }

    fn request(&self, stream: impl Read + Write) {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        // A handshake that fails, or a connection without a request.
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 || header.trim().is_empty() {
                break;
            }
            let (name, value) = header.trim().split_once(": ").unwrap();
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").map_or(0, |n| n.parse().unwrap());
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let mood = *self.mood.lock().unwrap();
        self.received.lock().unwrap().push(Received {
            line: line.trim_end().trim_end_matches(" HTTP/1.1").to_owned(),
            headers,
            body: String::from_utf8(body).unwrap(),
        });
        // Whoever asked may have gone.
        let _ = answer(&mut reader.into_inner(), mood);
    }
}

fn answer(stream: &mut impl Write, mood: Mood) -> std::io::Result<()> {
    let status = match mood {
        Mood::Answer(status) => status,
        Mood::Slow(time) => {
            thread::sleep(time);
            200
        }
        Mood::HangUp => return Ok(()),
        Mood::Garbage => return stream.write_all(b"\x00\xffSSH-2.0-not HTTP\r\n\r\n"),
        Mood::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            loop {
                stream.write_all(b"X-More: and more\r\n")?;
            }
        }
    };
    let location = if status / 100 == 3 { "Location: http://127.0.0.1:1/elsewhere\r\n" } else { "" };
    stream.write_all(
        format!("HTTP/1.1 {status} Because\r\n{location}Content-Length: 0\r\nConnection: close\r\n\r\n")
            .as_bytes(),
    )?;
    stream.flush()
}
