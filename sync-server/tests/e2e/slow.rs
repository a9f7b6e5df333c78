//! Connections that bring one frame at a time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sync_client::transport::{DialError, Dialer, Transport, TransportError};
use tokio::time::{Instant, Sleep, sleep};

/// Passes on what another dialer makes, with a pause after each frame that arrives.
pub struct Slow<D> {
    pub dialer: D,
    pub pause: Duration,
}

#[async_trait]
impl<D: Dialer> Dialer for Slow<D> {
    async fn dial(&self) -> Result<Box<dyn Transport>, DialError> {
        Ok(Box::new(SlowTransport {
            transport: self.dialer.dial().await?,
            pause: self.pause,
            until: Box::pin(sleep(Duration::ZERO)),
        }))
    }
}

struct SlowTransport {
    transport: Box<dyn Transport>,
    pause: Duration,
    until: Pin<Box<Sleep>>,
}

impl Transport for SlowTransport {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, TransportError>>> {
        ready!(self.until.as_mut().poll(cx));
        let received = self.transport.poll_receive(cx);
        if received.is_ready() {
            self.until.as_mut().reset(Instant::now() + self.pause);
        }
        received
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.transport.poll_ready(cx)
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        self.transport.start_send(frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.transport.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        self.transport.poll_close(cx, code)
    }

    fn close_code(&self) -> Option<u16> {
        self.transport.close_code()
    }
}
