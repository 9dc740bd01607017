//! No input ends a server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};

use strata_probe::{RequestSpec, TcpSpec, UdpSpec};

use crate::support::{Server, ask_one};

/// The same bytes every time (SplitMix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.below(600);
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// A message that was right before a few of its bytes were changed, repeated or cut.
    fn spoil(&mut self, message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(message.len());
            match self.below(4) {
                0 => message[at] = self.next().to_le_bytes()[0],
                1 => message.truncate(at + 1),
                2 => message.insert(at, b'\r'),
                _ => {
                    let again = message[at..].to_vec();
                    message.extend(again);
                }
            }
        }
        message
    }
}

const MESSAGES: [&[u8]; 8] = [
    b"GET /?status=204&delay_ms=1&size=9 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /?header=a:b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\nHTTP2-Settings: AA\r\n\r\n",
    b"OPTIONS * HTTP/1.0\r\n\r\n",
    b"HEAD http://x/status/304?size=10 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    // The preface, SETTINGS, and HEADERS of a GET (RFC 9113 §3.4, RFC 7541 appendix A).
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84",
    // The beginning of a ClientHello.
    b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x00\x00\x02\x13\x01\x01\x00\x00\x00",
];

#[test]
fn no_input_ends_a_server() {
    let server = Server::start(&["--http", "0", "--tls", "0", "--tcp", "0", "--udp", "0"]);
    let mut noise = Noise(1);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ports = [&server.at.http, &server.at.tls, &server.at.tcp].map(|at| at[0].port());
    for round in 0..400 {
        let bytes = match round % 4 {
            0 => noise.bytes(),
            _ => noise.spoil(MESSAGES[round % MESSAGES.len()]),
        };
        udp.send_to(&bytes, server.udp()).unwrap();
        for port in ports {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            // It may cut us off at any point.
            let _ = stream.write_all(&bytes);
            if noise.below(4) > 0 {
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.take(1 << 20).read_to_end(&mut Vec::new());
            }
        }
    }
    let insecure = RequestSpec {
        insecure: true,
        ..RequestSpec::get(server.tls_url("/"))
    };
    assert_eq!(
        ask_one(&RequestSpec::get(server.url("/"))).status,
        Some(200)
    );
    assert_eq!(ask_one(&insecure).status, Some(200));
    assert_eq!(ask_one(&TcpSpec::new(server.tcp())).error, None);
    assert_eq!(ask_one(&UdpSpec::new(server.udp())).error, None);
}
