//! Sockets of clients: what a session needs of one, with TLS and without.

use tokio::io::{AsyncRead, AsyncWrite};

/// A socket that can be read and written by two tasks.
pub(crate) trait SplitSocket: Send + 'static {
    /// The half that is read.
    type Reader: AsyncRead + Unpin + Send + 'static;
    /// The half that is written.
    type Writer: AsyncWrite + Unpin + Send + 'static;

    /// The two halves.
    fn split_socket(self) -> (Self::Reader, Self::Writer);
}

impl SplitSocket for tokio::net::TcpStream {
    type Reader = tokio::net::tcp::OwnedReadHalf;
    type Writer = tokio::net::tcp::OwnedWriteHalf;
    fn split_socket(self) -> (Self::Reader, Self::Writer) {
        self.into_split()
    }
}

impl SplitSocket for tokio_rustls::server::TlsStream<tokio::net::TcpStream> {
    type Reader = tokio::io::ReadHalf<Self>;
    type Writer = tokio::io::WriteHalf<Self>;
    fn split_socket(self) -> (Self::Reader, Self::Writer) {
        tokio::io::split(self)
    }
}

#[cfg(test)]
impl SplitSocket for tokio::io::DuplexStream {
    type Reader = tokio::io::ReadHalf<Self>;
    type Writer = tokio::io::WriteHalf<Self>;
    fn split_socket(self) -> (Self::Reader, Self::Writer) {
        tokio::io::split(self)
    }
}
