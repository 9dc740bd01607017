//! Blocks of headers, packed (SPDY/3, 2.6.10): one zlib stream a direction, cut after every block.
//!
//! Start from [`Unpacker`] and [`Packer`].

use std::io;

use bytes::{Buf as _, BufMut as _};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::frame::wrong;

/// What a block may come to.
const LARGEST: usize = 64 << 10;

/// What both sides take for sent before the first block: these words, each after its length, and
/// then [`TEXT`] (2.6.10.1).
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding \
    accept-language accept-ranges age allow authorization cache-control connection content-base \
    content-encoding content-language content-length content-location content-md5 content-range \
    content-type date etag expect expires from host if-match if-modified-since if-none-match \
    if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate \
    proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url \
    public set-cookie keep-alive origin";
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416\
    417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request\
    401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 \
    Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, \
    Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
    application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
    charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut dictionary = Vec::new();
    for word in WORDS.split_ascii_whitespace() {
        put(&mut dictionary, &word.replace('_', " "));
    }
    dictionary.put_slice(TEXT.as_bytes());
    dictionary
}

/// A text after its length.
fn put(to: &mut Vec<u8>, text: &str) {
    // Shorter than that by far.
    to.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    to.put_slice(text.as_bytes());
}

/// Unpacks the blocks of one direction, in their order.
pub(super) struct Unpacker(Decompress);

impl Unpacker {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Names, in lower case, and values.
    ///
    /// # Errors
    /// When the block is not one, or is unreasonably large.
    pub(super) fn unpack(&mut self, packed: &[u8]) -> io::Result<Vec<(String, String)>> {
        let plain = self.inflate(packed)?;
        let mut block = &plain[..];
        let short = |_| wrong("a block of headers is too short");
        let count = block.try_get_u32().map_err(short)?;
        let mut text = || {
            let length = block.try_get_u32().map_err(short)?;
            let length = usize::try_from(length).map_err(io::Error::other)?;
            if block.remaining() < length {
                return Err(wrong("a block of headers is too short"));
            }
            let text = block.copy_to_bytes(length);
            String::from_utf8(text.into()).map_err(|_| wrong("a header is not UTF-8"))
        };
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = text()?.to_ascii_lowercase();
            let value = text()?;
            // Several values of one name have a NUL between them.
            headers.extend(value.split('\0').map(|one| (name.clone(), one.to_owned())));
        }
        Ok(headers)
    }

    fn inflate(&mut self, packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::with_capacity(1 << 10);
        let mut rest = packed;
        loop {
            let before = self.0.total_in();
            let outcome = self
                .0
                .decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            let read = usize::try_from(self.0.total_in() - before).map_err(io::Error::other)?;
            rest = rest.get(read..).unwrap_or_default();
            match outcome {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    let known = self.0.set_dictionary(&dictionary());
                    known.map_err(|_| wrong("headers are packed with an unknown dictionary"))?;
                    continue;
                }
                Err(_) => return Err(wrong("headers are not packed as they should be")),
            }
            let full = plain.len() == plain.capacity();
            if full && plain.len() >= LARGEST {
                return Err(wrong("a block of headers is too large"));
            }
            if full {
                plain.reserve(plain.len());
            } else if rest.is_empty() {
                return Ok(plain);
            } else if read == 0 {
                return Err(wrong("headers are not packed as they should be"));
            }
        }
    }
}

/// Packs the blocks of one direction.
pub(super) struct Packer(Compress);

impl Packer {
    pub(super) fn new() -> io::Result<Self> {
        let mut deflate = Compress::new(Compression::default(), true);
        deflate
            .set_dictionary(&dictionary())
            .map_err(io::Error::other)?;
        Ok(Self(deflate))
    }

    /// A block of names and values.
    ///
    /// # Errors
    /// When zlib fails, which would be a defect.
    pub(super) fn pack(&mut self, headers: &[(String, String)]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        plain.put_u32(u32::try_from(headers.len()).map_err(io::Error::other)?);
        for (name, value) in headers {
            put(&mut plain, name);
            put(&mut plain, value);
        }
        let mut packed = Vec::with_capacity(plain.len() + 64);
        let mut rest = &plain[..];
        loop {
            let before = self.0.total_in();
            let packing = self.0.compress_vec(rest, &mut packed, FlushCompress::Sync);
            packing.map_err(io::Error::other)?;
            let read = usize::try_from(self.0.total_in() - before).map_err(io::Error::other)?;
            rest = rest.get(read..).unwrap_or_default();
            if rest.is_empty() && packed.len() < packed.capacity() {
                return Ok(packed);
            }
            packed.reserve(64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_that_of_spdy_3() {
        let mut deflate = Compress::new(Compression::default(), true);
        assert_eq!(dictionary().len(), 1423);
        assert_eq!(deflate.set_dictionary(&dictionary()).unwrap(), 0xe3c6_a7c2);
    }

    #[test]
    fn blocks_are_unpacked_in_their_order_and_bounded() {
        let (mut packer, mut unpacker) = (Packer::new().unwrap(), Unpacker::new());
        for value in ["a", "b", &"c".repeat(40_000)] {
            let headers = vec![("streamtype".to_owned(), value.to_owned())];
            let packed = packer.pack(&headers).unwrap();
            assert_eq!(unpacker.unpack(&packed).unwrap(), headers);
        }
        let headers = vec![("bomb".to_owned(), "0".repeat(10 << 20))];
        let packed = packer.pack(&headers).unwrap();
        assert!(packed.len() < 16 << 10, "{}", packed.len());
        let refused = unpacker.unpack(&packed).unwrap_err();
        assert_eq!(refused.to_string(), "a block of headers is too large");
    }

    #[test]
    fn several_values_of_a_name_are_several() {
        let (mut packer, mut unpacker) = (Packer::new().unwrap(), Unpacker::new());
        let packed = packer
            .pack(&[("Port".to_owned(), "80\x0081".to_owned())])
            .unwrap();
        let port = |value: &str| ("port".to_owned(), value.to_owned());
        assert_eq!(unpacker.unpack(&packed).unwrap(), [port("80"), port("81")]);
    }
}
