//! The binary, run as a check runs it, against servers on loopback.

#[cfg(test)]
mod batch;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod dns;
#[cfg(test)]
mod http;
#[cfg(test)]
mod life;
#[cfg(test)]
mod noise;
#[cfg(test)]
mod stream;
#[cfg(test)]
mod support;
#[cfg(test)]
mod websocket;
