//! gRPC over a unix socket, as much of it as containerd is asked for (grpc/doc/PROTOCOL-HTTP2.md): a call sends messages
//! and receives messages, uncompressed, and ends with a status. Knows nothing of containerd.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use frontend::git_url::percent_decoded_bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request};
use prost::Message;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;

/// Longest wait for a connection to a socket.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a message that is received, in bytes; containerd's own limit.
const MESSAGE_LIMIT: usize = 16 << 20;
/// A byte that says whether it is compressed, and four of its length.
const PREFIX_LEN: usize = 5;

/// Status codes that kiln tells apart (grpc/doc/statuscodes.md).
pub mod code {
    pub const OK: u32 = 0;
    pub const UNKNOWN: u32 = 2;
    pub const NOT_FOUND: u32 = 5;
    pub const ALREADY_EXISTS: u32 = 6;
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server's own words.
    #[error("{message}")]
    Status { code: u32, message: String },
    #[error("the connection broke")]
    Broken(#[from] h2::Error),
    #[error("the answer has the HTTP status {0}: it is no gRPC server")]
    Http(http::StatusCode),
    #[error("the server ended the call without an answer")]
    NoAnswer,
    #[error("a message of the answer cannot be read")]
    Decode(#[from] prost::DecodeError),
    #[error("a message of the answer is compressed, which was not asked for, or has {0} bytes")]
    Framing(usize),
}

/// A connection. Cheap to clone; calls run beside each other.
#[derive(Clone)]
pub struct Channel {
    sender: SendRequest<Bytes>,
}

impl Channel {
    /// Connects to a socket.
    pub async fn connect(socket: &Path) -> io::Result<Channel> {
        let connect = async {
            let stream = UnixStream::connect(socket).await?;
            let (sender, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
            // It ends with the last call and the last clone of the channel; what is wrong with it, calls tell.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a gRPC connection ended");
                }
            });
            Ok(Channel { sender })
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// One message there, one back. `method` is `/package.Service/Method`.
    pub async fn unary<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        metadata: &HeaderMap,
        question: &Q,
    ) -> Result<A, CallError> {
        let mut call = self.open(method, metadata).await?;
        call.send(question).await?;
        call.close();
        let answer = call.receive().await?.ok_or(CallError::NoAnswer)?;
        call.end().await?;
        Ok(answer)
    }

    /// Begins a call.
    pub async fn open(&self, method: &str, metadata: &HeaderMap) -> Result<Call, CallError> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("http://localhost{method}").parse().expect("methods are constants of kiln");
        *request.headers_mut() = metadata.clone();
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        let (response, out) = self.sender.clone().ready().await?.send_request(request, false)?;
        Ok(Call { out, response, body: None, buffer: BytesMut::new() })
    }
}

/// A call that goes on. Dropped, it is cancelled.
pub struct Call {
    out: SendStream<Bytes>,
    response: ResponseFuture,
    /// What the response has, once it has come.
    body: Option<RecvStream>,
    /// Received, and not yet a whole message.
    buffer: BytesMut,
}

impl Call {
    /// Sends a message; returns when the connection has taken all of it.
    pub async fn send(&mut self, message: &impl Message) -> Result<(), CallError> {
        let length = message.encoded_len();
        let mut framed = BytesMut::with_capacity(PREFIX_LEN + length);
        framed.put_u8(0);
        framed.put_u32(u32::try_from(length).map_err(|_| CallError::Framing(length))?);
        message.encode(&mut framed).expect("there is room for its length");
        match self.send_bytes(framed.freeze()).await {
            Ok(()) => Ok(()),
            // A server that has had enough says why in its status.
            Err(error) => Err(self.end().await.err().unwrap_or(error)),
        }
    }

    async fn send_bytes(&mut self, mut bytes: Bytes) -> Result<(), CallError> {
        while !bytes.is_empty() {
            self.out.reserve_capacity(bytes.len());
            let granted = poll_fn(|context| self.out.poll_capacity(context)).await.ok_or(CallError::NoAnswer)??;
            self.out.send_data(bytes.split_to(granted.min(bytes.len())), false)?;
        }
        Ok(())
    }

    /// The next message; `None` after the last, when the call was a success.
    pub async fn receive<A: Message + Default>(&mut self) -> Result<Option<A>, CallError> {
        loop {
            if let Some(message) = whole_message(&mut self.buffer)? {
                return Ok(Some(A::decode(message)?));
            }
            let body = self.body().await?;
            match body.data().await {
                Some(bytes) => {
                    let bytes = bytes?;
                    body.flow_control().release_capacity(bytes.len())?;
                    self.buffer.extend_from_slice(&bytes);
                }
                None => {
                    let trailers = body.trailers().await?.ok_or(CallError::NoAnswer)?;
                    return status(&trailers).map(|()| None);
                }
            }
        }
    }

    /// Says that no more is sent.
    pub fn close(&mut self) {
        // It fails if the call has ended already.
        let _ = self.out.send_data(Bytes::new(), true);
    }

    /// Closes, and waits for the call's status. Messages that still come are dropped.
    pub async fn end(&mut self) -> Result<(), CallError> {
        self.close();
        while self.receive::<Ignored>().await?.is_some() {}
        Ok(())
    }

    async fn body(&mut self) -> Result<&mut RecvStream, CallError> {
        if self.body.is_none() {
            let (head, body) = (&mut self.response).await?.into_parts();
            // Also that of a failure: a response must not be awaited again.
            self.body = Some(body);
            if head.status != http::StatusCode::OK {
                return Err(CallError::Http(head.status));
            }
            // An answer without messages has the status at its head.
            if head.headers.contains_key("grpc-status") {
                status(&head.headers)?;
            }
        }
        self.body.as_mut().ok_or(CallError::NoAnswer)
    }
}

/// A message of which nothing is wanted: all its fields are unknown, and those are skipped.
#[derive(Clone, PartialEq, Message)]
struct Ignored {}

/// For `properties.rs`: reads what a server may send, as all that kiln reads of one.
pub fn read_every_way(input: &[u8]) {
    let mut whole = BytesMut::from(input);
    let mut pieces = BytesMut::new();
    let mut one_by_one = input.chunks(1).flat_map(|byte| {
        pieces.extend_from_slice(byte);
        whole_message(&mut pieces).transpose()
    });
    loop {
        match (whole_message(&mut whole), one_by_one.next()) {
            (Ok(Some(message)), Some(Ok(same))) => assert_eq!(message, same),
            (Ok(None), None) | (Err(_), Some(Err(_))) => break,
            (found, same) => panic!("{found:?} in one piece, {same:?} in many"),
        }
    }
    percent_decoded_bytes(input);
}

/// Takes a message from the beginning of what was received, if it is there whole.
fn whole_message(buffer: &mut BytesMut) -> Result<Option<Bytes>, CallError> {
    let Some(prefix) = buffer.first_chunk::<PREFIX_LEN>() else { return Ok(None) };
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if prefix[0] != 0 || length > MESSAGE_LIMIT {
        return Err(CallError::Framing(length));
    }
    if buffer.len() < PREFIX_LEN + length {
        return Ok(None);
    }
    buffer.advance(PREFIX_LEN);
    Ok(Some(buffer.split_to(length).freeze()))
}

fn status(trailers: &HeaderMap) -> Result<(), CallError> {
    let text = |name: &str| trailers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    let code = std::str::from_utf8(text("grpc-status")).ok().and_then(|text| text.parse().ok());
    match code.unwrap_or(code::UNKNOWN) {
        code::OK => Ok(()),
        code => {
            let message = percent_decoded_bytes(text("grpc-message"));
            Err(CallError::Status { code, message: String::from_utf8_lossy(&message).into_owned() })
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// For servers of tests.
    pub fn take(buffer: &mut BytesMut) -> Option<Bytes> {
        whole_message(buffer).unwrap()
    }

    #[test]
    fn messages_come_in_pieces() {
        let mut buffer = BytesMut::new();
        let mut next = |bytes: &[u8]| {
            buffer.extend_from_slice(bytes);
            whole_message(&mut buffer)
        };
        assert!(next(&[0, 0, 0]).unwrap().is_none());
        assert!(next(&[0, 2, b'a']).unwrap().is_none());
        assert_eq!(next(&[b'b', 0, 0, 0, 0, 0]).unwrap().unwrap(), "ab");
        assert_eq!(next(&[]).unwrap().unwrap(), "");
        assert!(matches!(next(&[1, 0, 0, 0, 0]), Err(CallError::Framing(0))));
    }

    #[test]
    fn a_message_of_gigabytes_is_refused() {
        let mut buffer = BytesMut::from(&[0, 0x7f, 0xff, 0xff, 0xff][..]);
        assert!(matches!(whole_message(&mut buffer), Err(CallError::Framing(_))));
    }

    #[test]
    fn statuses_are_read() {
        let check = |headers: &[(&'static str, &'static str)], expect: Result<(), (u32, &str)>| {
            let headers = headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            let got = status(&headers.collect());
            let got = got.map_err(|error| match error {
                CallError::Status { code, message } => (code, message),
                error => panic!("{error}"),
            });
            assert_eq!(got, expect.map_err(|(code, message)| (code, message.to_string())));
        };
        check(&[("grpc-status", "0")], Ok(()));
        check(&[("grpc-status", "6"), ("grpc-message", "a%20b%zz %e2%82%ac%2")], Err((6, "a b%zz €%2")));
        check(&[("grpc-status", "many")], Err((2, "")));
        check(&[], Err((2, "")));
    }
}
