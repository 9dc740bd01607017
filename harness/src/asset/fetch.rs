//! One file over HTTP, to its end.
//!
//! Start from [`whole`]. What a try brought is not asked for again: the next one goes on there
//! (`Range`), if the server still has the same file (`If-Range`). A try ends when too little comes
//! for too long, and the fetch ends after a few tries in a row that brought it no further. Whether the
//! content is right is the store's to say. Rule: nothing that a server says about lengths is
//! believed without counting.

use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_RANGE, LAST_MODIFIED, RANGE,
    TRANSFER_ENCODING,
};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::time::{Instant, timeout_at};

use super::partial::Partial;
use super::{AssetError, Told};
use crate::wait;
use crate::web::{innermost, shown};

/// How long a server that gives nothing is put up with.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// A try ends when fewer than `least` bytes came for so long.
    pub quiet: Duration,
    /// What counts as progress.
    pub least: u64,
    /// How many tries in a row may bring less than that.
    pub tries: u32,
    /// The time between two of those.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            quiet: Duration::from_secs(30),
            least: 16 << 10,
            tries: 4,
            pause: Duration::from_secs(2),
        }
    }
}

/// What is fetched.
pub(super) struct Wanted<'a> {
    /// What errors and progress call it.
    pub(super) shown: &'a str,
    pub(super) url: &'a Url,
    /// Its length, where that is pinned.
    pub(super) length: Option<u64>,
    /// The most that is taken of it where it is not.
    pub(super) most: u64,
}

/// What ended a try.
enum Ended {
    /// Another one would end in the same way.
    ForGood(AssetError),
    /// Another one may do better.
    ForNow(AssetError),
}

impl From<AssetError> for Ended {
    fn from(error: AssetError) -> Self {
        Self::ForGood(error)
    }
}

/// Fetches all that is missing of a file.
///
/// # Errors
/// When the server refuses it or sends too much, this machine's disk does not take it, or the
/// patience is spent.
pub(super) async fn whole(
    client: &Client,
    wanted: &Wanted<'_>,
    partial: &mut Partial,
    patience: Patience,
    told: Told<'_>,
) -> Result<(), AssetError> {
    if partial.length() > wanted.length.unwrap_or(wanted.most) {
        partial.begin(None)?;
    }
    if wanted.length == Some(partial.length()) {
        return Ok(());
    }
    let mut fetch = Fetch {
        client,
        wanted,
        partial,
        patience,
        told,
        restarts: 0,
        said: None,
    };
    let (mut in_vain, mut furthest, mut forgiven) = (0, fetch.partial.length(), 0);
    loop {
        let error = match fetch.once().await {
            Ok(()) => return Ok(()),
            Err(Ended::ForGood(error)) => return Err(error),
            Err(Ended::ForNow(error)) => error,
        };
        tracing::info!("{}: {error}", wanted.shown);
        if fetch.restarts > forgiven && forgiven == 0 {
            // What there was may have been of another file. Of one that is cut each time and always
            // sent from its beginning no more would ever come, so this counts once.
            (forgiven, furthest) = (1, 0);
        }
        if fetch.partial.length() >= furthest + patience.least {
            (in_vain, furthest) = (0, fetch.partial.length());
            continue;
        }
        in_vain += 1;
        if in_vain >= patience.tries {
            return Err(AssetError::GaveUp {
                asset: wanted.shown.to_owned(),
                tries: in_vain,
                source: Box::new(error),
            });
        }
        wait::pause(patience.pause).await;
    }
}

struct Fetch<'a> {
    client: &'a Client,
    wanted: &'a Wanted<'a>,
    partial: &'a mut Partial,
    patience: Patience,
    told: Told<'a>,
    /// How often what there was had to be thrown away.
    restarts: u32,
    said: Option<u64>,
}

impl Fetch<'_> {
    async fn once(&mut self) -> Result<(), Ended> {
        let had = self.partial.length();
        let response = self.ask(had).await?;
        let headers = response.headers();
        match response.status() {
            StatusCode::OK => {
                self.not_too_long(response.content_length())?;
                self.restarts += u32::from(had > 0);
                self.partial.begin(validator(headers).as_deref())?;
            }
            StatusCode::PARTIAL_CONTENT if had > 0 && self.goes_on(headers, had) => {
                self.partial.go_on();
            }
            status => return Err(self.refused(status, headers)),
        }
        self.take(response).await
    }

    async fn ask(&self, had: u64) -> Result<Response, Ended> {
        let mut request = self.client.get(self.wanted.url.clone());
        // Sums are of the file, not of what a proxy makes of it.
        request = request.header(ACCEPT_ENCODING, "identity");
        if had > 0 {
            request = request.header(RANGE, format!("bytes={had}-"));
            if let Some(validator) = self.partial.validator() {
                request = request.header(IF_RANGE, validator);
            }
        }
        match timeout_at(self.deadline(), request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => Err(Ended::ForNow(self.stalled())),
        }
    }

    /// Reads an answer's body to its end, or until too little comes of it.
    async fn take(&mut self, mut response: Response) -> Result<(), Ended> {
        let ends_by_itself = response.content_length().is_some()
            || response.headers().contains_key(TRANSFER_ENCODING);
        let (mut deadline, mut since) = (self.deadline(), 0);
        loop {
            let chunk = match timeout_at(deadline, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(self.failed(&error)),
                Err(_) => return Err(Ended::ForNow(self.stalled())),
            };
            let more = chunk.len() as u64;
            let most = self.wanted.length.unwrap_or(self.wanted.most);
            if self.partial.length() + more > most {
                self.partial.begin(None)?;
                return Err(self.too_long("longer".to_owned()).into());
            }
            self.partial.add(&chunk)?;
            since += more;
            if since >= self.patience.least {
                (deadline, since) = (self.deadline(), 0);
            }
            self.tell();
        }
        match self.wanted.length {
            // A connection that is merely closed may have been cut.
            Some(length) if !ends_by_itself && self.partial.length() < length => {
                Err(Ended::ForNow(AssetError::Truncated {
                    url: self.url(),
                    had: self.partial.length(),
                    length,
                }))
            }
            _ => Ok(()),
        }
    }

    /// Whether a partial answer begins where ours ends, and is of the same file.
    fn goes_on(&self, headers: &HeaderMap, had: u64) -> bool {
        let Some((first, length)) = content_range(headers) else {
            return false;
        };
        let of = |known: Option<u64>| known.is_none() || length.is_none() || known == length;
        let now = validator(headers);
        let same = match (self.partial.validator(), &now) {
            (Some(before), Some(now)) => before == now,
            _ => true,
        };
        first == had && of(self.wanted.length) && same
    }

    /// What an answer without the file means.
    fn refused(&mut self, status: StatusCode, headers: &HeaderMap) -> Ended {
        let url = self.url();
        let error = if status == StatusCode::PARTIAL_CONTENT {
            let range = headers
                .get(CONTENT_RANGE)
                .and_then(|range| range.to_str().ok());
            let range = range.unwrap_or("it does not say which").to_owned();
            AssetError::OtherRange { url, range }
        } else {
            AssetError::Status { url, status }
        };
        let asked_for_a_part = self.partial.length() > 0;
        let about_the_part = matches!(
            status,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
        );
        if about_the_part {
            // What there is does not fit the server's file: the next try asks for all of it.
            self.restarts += u32::from(asked_for_a_part);
            if let Err(error) = self.partial.begin(None) {
                return Ended::ForGood(error);
            }
        }
        let passing = matches!(status.as_u16(), 408 | 425 | 429 | 500..=599);
        if passing || (about_the_part && asked_for_a_part) {
            Ended::ForNow(error)
        } else {
            Ended::ForGood(error)
        }
    }

    fn not_too_long(&self, said: Option<u64>) -> Result<(), Ended> {
        let most = self.wanted.length.unwrap_or(self.wanted.most);
        match said {
            Some(said) if said > most => Err(self.too_long(format!("{said} bytes long")).into()),
            _ => Ok(()),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.patience.quiet
    }

    fn url(&self) -> String {
        shown(self.wanted.url)
    }

    fn stalled(&self) -> AssetError {
        AssetError::Stalled {
            url: self.url(),
            least: self.patience.least,
            seconds: self.patience.quiet.as_secs(),
            had: self.partial.length(),
        }
    }

    fn too_long(&self, found: String) -> AssetError {
        AssetError::TooLong {
            url: self.url(),
            found,
            most: self.wanted.length.unwrap_or(self.wanted.most),
        }
    }

    fn failed(&self, error: &reqwest::Error) -> Ended {
        let by_certificate = causes(error).any(|cause| {
            matches!(
                cause.downcast_ref::<rustls::Error>(),
                Some(rustls::Error::InvalidCertificate(_))
            )
        });
        let hint = if by_certificate {
            "; if its authority is your own, name its certificate (PEM) by SSL_CERT_FILE"
        } else {
            ""
        };
        let failed = AssetError::Request {
            url: self.url(),
            problem: innermost(error),
            hint,
        };
        if by_certificate || error.is_redirect() || error.is_builder() {
            Ended::ForGood(failed)
        } else {
            Ended::ForNow(failed)
        }
    }

    /// Says how far it is, in quarters: whoever reads lines wants few.
    fn tell(&mut self) {
        let Some(length) = self.wanted.length.filter(|length| *length > 0) else {
            return;
        };
        let quarter = self.partial.length() * 4 / length;
        if self.said.replace(quarter) != Some(quarter) {
            let size = indicatif::HumanBytes(length);
            let (name, percent) = (self.wanted.shown, quarter * 25);
            (self.told)(&format!("fetching {name}: {percent} % of {size}"));
        }
    }
}

/// The reasons of an error. Those of I/O errors are within them, where `source` does not lead.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let within = error.downcast_ref::<std::io::Error>();
        match within.and_then(std::io::Error::get_ref) {
            Some(within) => Some(within as &(dyn std::error::Error + 'static)),
            None => error.source(),
        }
    })
}

/// What a server calls the state of its file, if by that a part can be asked for (RFC 9110,
/// 13.1.5): a strong entity tag, else a date.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::to_owned);
    let strong = text(ETAG).filter(|tag| tag.starts_with('"'));
    strong.or_else(|| text(LAST_MODIFIED))
}

/// `Content-Range: bytes 5-9/10`: the first byte and the whole length, if that is known.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, length) = text.strip_prefix("bytes ")?.split_once('/')?;
    let first = range.split_once('-')?.0.trim().parse().ok()?;
    match length.trim() {
        "*" => Some((first, None)),
        length => Some((first, Some(length.parse().ok()?))),
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let value = reqwest::header::HeaderValue::from_static;
        pairs
            .iter()
            .map(|(name, text)| (name.clone(), value(text)))
            .collect()
    }

    #[test]
    fn ranges_are_read_or_are_none() {
        for (text, expected) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes */10", None),
            ("bytes 5-9", None),
            ("lines 5-9/10", None),
            ("bytes x-9/10", None),
            ("bytes 5-9/ten", None),
            ("bytes 99999999999999999999-1/2", None),
        ] {
            let found = content_range(&headers(&[(CONTENT_RANGE, text)]));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_part_is_asked_for_by_what_identifies_bytes() {
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        for (pairs, expected) in [
            (vec![(ETAG, "\"a\""), (LAST_MODIFIED, date)], Some("\"a\"")),
            (vec![(ETAG, "W/\"a\""), (LAST_MODIFIED, date)], Some(date)),
            (vec![(ETAG, "W/\"a\"")], None),
            (vec![], None),
        ] {
            assert_eq!(validator(&headers(&pairs)).as_deref(), expected);
        }
    }
}
