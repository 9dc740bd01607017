//! A web server on loopback that does as it is told, byte by byte: also what no good one does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte of the range that is asked for.
    pub(crate) fn from(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }
}

/// What is said.
pub(crate) struct Said {
    bytes: Vec<u8>,
    hang: bool,
}

impl Said {
    /// An answer; the length that it tells is its body's, unless it is told another.
    pub(crate) fn new(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut head = format!("HTTP/1.1 {status} as told\r\nconnection: close\r\n");
        let has = |wanted: &str| headers.iter().any(|(name, _)| *name == wanted);
        if !has("content-length") && !has("transfer-encoding") && !has("without-length") {
            head += &format!("content-length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let bytes = [head.as_bytes(), b"\r\n", body].concat();
        Self { bytes, hang: false }
    }

    /// All of a file, or the part of it that is asked for, as a good server does it.
    pub(crate) fn file(asked: &Asked, etag: &str, body: &[u8]) -> Self {
        let same = asked.header("if-range").is_none_or(|tag| tag == etag);
        match asked.from().filter(|_| same) {
            Some(first) if first >= body.len() => {
                let range = format!("bytes */{}", body.len());
                Self::new(416, &[("content-range", &range)], b"")
            }
            Some(first) => Self::part(first, body.len(), etag, &body[first..]),
            None => Self::new(200, &[("etag", etag)], body),
        }
    }

    /// A part, said to begin at `first` and to be of so many bytes.
    pub(crate) fn part(first: usize, whole: usize, etag: &str, body: &[u8]) -> Self {
        let last = first + body.len() - 1;
        let range = format!("bytes {first}-{last}/{whole}");
        Self::new(206, &[("content-range", &range), ("etag", etag)], body)
    }

    pub(crate) fn redirect(to: &str) -> Self {
        Self::new(302, &[("location", to)], b"")
    }

    /// Without its last bytes.
    pub(crate) fn cut(mut self, bytes: usize) -> Self {
        self.bytes.truncate(self.bytes.len() - bytes);
        self
    }

    /// No more than its first bytes.
    pub(crate) fn keep(&mut self, bytes: usize) {
        self.bytes.truncate(bytes);
    }

    /// And then nothing, without an end.
    pub(crate) fn and_hang(mut self) -> Self {
        self.hang = true;
        self
    }
}

type Answer = dyn Fn(usize, &Asked) -> Said + Send + Sync;

/// The server; it ends when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers what is asked; requests are counted from nought.
    pub(crate) async fn new(
        answer: impl Fn(usize, &Asked) -> Said + Send + Sync + 'static,
    ) -> Self {
        Self::start(None, Arc::new(answer)).await
    }

    /// The same by TLS.
    pub(crate) async fn with_tls(
        tls: TlsAcceptor,
        answer: impl Fn(usize, &Asked) -> Said + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(tls), Arc::new(answer)).await
    }

    async fn start(tls: Option<TlsAcceptor>, answer: Arc<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        // Its connections are its own, so that they end with it.
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, answer, noted) = (tls.clone(), answer.clone(), noted.clone());
                connections.spawn(async move {
                    match tls {
                        None => talk(stream, &answer, &noted).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                talk(stream, &answer, &noted).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            asked,
            task,
        }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// `http://HOST:PORT/PATH`, HOST being a name or address of this machine.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    answer: &Arc<Answer>,
    noted: &Mutex<Vec<Asked>>,
) {
    let Some(asked) = read(&mut stream).await else {
        return;
    };
    let said = {
        let mut noted = noted.lock().unwrap();
        let said = answer(noted.len(), &asked);
        noted.push(asked);
        said
    };
    let _ = stream.write_all(&said.bytes).await;
    let _ = stream.flush().await;
    if said.hang {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head).ok()?;
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ').map(str::to_owned);
    let (method, target) = (first.next()?, first.next()?);
    let pair = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_ascii_lowercase(), value.to_owned()))
    };
    let headers = lines.filter_map(pair).collect();
    Some(Asked {
        method,
        target,
        headers,
    })
}

/// A proxy that tunnels whatever host is asked for to one address, and notes what was asked for.
pub(crate) struct Tunnel {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tunnel {
    pub(crate) async fn to(end: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let noted = noted.clone();
                connections.spawn(async move {
                    let Some(asked) = read(&mut near).await else {
                        return;
                    };
                    noted
                        .lock()
                        .unwrap()
                        .push(format!("{} {}", asked.method, asked.target));
                    let mut far = TcpStream::connect(end).await.unwrap();
                    let _ = near.write_all(b"HTTP/1.1 200 tunnelled\r\n\r\n").await;
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self {
            address,
            asked,
            task,
        }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// An authority that nobody knows but who is told, with a server's certificate.
pub(crate) struct Authority {
    /// Its own certificate, as a file of `SSL_CERT_FILE` has it.
    pub(crate) pem: String,
    /// The server's.
    pub(crate) certificate: String,
    /// The server's too.
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(names: &[&str]) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Self {
            pem: issuer.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
