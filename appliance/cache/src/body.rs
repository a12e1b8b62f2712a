//! Bodies of responses, and reading those of requests.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use store::Reader;
use tokio::time::Instant;

use crate::accounts::Whose;
use crate::metrics::Observed;
use crate::pace::Pace;
use crate::transport::activity::Activity;
use crate::transport::budget::{Overloaded, Permit, Share};

type Next = Pin<Box<dyn Future<Output = (Reader, Result<Option<Bytes>, store::Error>)> + Send>>;

type Waiting = Pin<Box<dyn Future<Output = Permit> + Send>>;

/// Most bytes that the store reads at once, and so most that a permit is for.
pub(crate) const CHUNK: u64 = 256 * 1024;

enum Content {
    Bytes(Bytes),
    Object(Reader),
    /// Waiting for room in the budget, with the bytes that are left.
    Waiting(Waiting, Reader),
    /// Reading, with the bytes that were left before.
    Reading(Next, u64),
    Over,
}

/// The body of a response.
pub(crate) struct Body {
    content: Content,
    /// Whose bytes they are. `None`: nobody's, such as the words of an error.
    share: Option<Share>,
    whose: Option<Whose>,
    /// For the chunk that is being read.
    permit: Option<Permit>,
    observed: Option<Observed>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.remaining())
    }
}

impl Body {
    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::new(Content::Bytes(bytes.into()))
    }

    /// The bytes of an object, which take their memory from a share of the budget.
    ///
    /// # Errors
    ///
    /// There is no room for the first of them, and will not be soon.
    pub(crate) async fn download(reader: Reader, share: Share) -> Result<Self, Overloaded> {
        share.admit(reader.remaining().min(CHUNK)).await?;
        let mut body = Self::new(Content::Object(reader));
        body.within(share);
        Ok(body)
    }

    fn new(content: Content) -> Self {
        Self {
            content,
            share: None,
            whose: None,
            permit: None,
            observed: None,
        }
    }

    /// Takes the memory for its bytes from the budget, as this share of it.
    pub(crate) fn within(&mut self, share: Share) {
        self.share = Some(share);
    }

    /// Says whose request it answers.
    pub(crate) fn answers(&mut self, whose: Whose) {
        self.whose = Some(whose);
    }

    /// Whose request it answers, if that is known.
    pub(crate) fn whose(&self) -> Option<&Whose> {
        self.whose.as_ref()
    }

    /// Ties the observation of the request to its life.
    pub(crate) fn observe(&mut self, observed: Observed) {
        self.observed = Some(observed);
    }

    fn remaining(&self) -> u64 {
        match &self.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Object(reader) | Content::Waiting(_, reader) => reader.remaining(),
            Content::Reading(_, remaining) => *remaining,
            Content::Over => 0,
        }
    }

    /// The permit for the next chunk. `Err`: there is no room; the future waits for some.
    fn reserve(&mut self, bytes: u64) -> Result<(), Waiting> {
        let Some(share) = self.share.as_ref().filter(|_| self.permit.is_none()) else {
            return Ok(());
        };
        match share.try_take(bytes) {
            Some(permit) => {
                self.permit = Some(permit);
                Ok(())
            }
            None => {
                let share = share.clone();
                Err(Box::pin(async move { share.take(bytes).await }))
            }
        }
    }

    fn hand_out(&mut self, chunk: Bytes) -> Poll<Option<Result<Frame<Bytes>, store::Error>>> {
        if let Some(observed) = &self.observed {
            observed.sent(chunk.len());
        }
        let chunk = match self.permit.take() {
            Some(permit) => permit.with(chunk),
            None => chunk,
        };
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = store::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, store::Error>>> {
        match std::mem::replace(&mut self.content, Content::Over) {
            Content::Over => return Poll::Ready(None),
            Content::Bytes(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Content::Bytes(bytes) => {
                // They are in memory already; without room they go out uncounted.
                let _ = self.reserve(bytes.len() as u64);
                return self.hand_out(bytes);
            }
            Content::Waiting(waiting, reader) => {
                self.content = Content::Waiting(waiting, reader);
                let Content::Waiting(waiting, _) = &mut self.content else {
                    return Poll::Ready(None);
                };
                let Poll::Ready(permit) = waiting.as_mut().poll(context) else {
                    return Poll::Pending;
                };
                self.permit = Some(permit);
                if let Content::Waiting(_, reader) =
                    std::mem::replace(&mut self.content, Content::Over)
                {
                    self.content = Content::Object(reader);
                }
                return self.poll_frame(context);
            }
            Content::Object(mut reader) => {
                if let Err(waiting) = self.reserve(reader.remaining().min(CHUNK)) {
                    self.content = Content::Waiting(waiting, reader);
                    return self.poll_frame(context);
                }
                if let Some(chunk) = reader.next_ready() {
                    self.content = Content::Object(reader);
                    return self.hand_out(chunk);
                }
                if reader.remaining() == 0 {
                    return Poll::Ready(None);
                }
                let remaining = reader.remaining();
                let next = Box::pin(async move {
                    let next = reader.next().await;
                    (reader, next)
                });
                self.content = Content::Reading(next, remaining);
            }
            reading @ Content::Reading(..) => self.content = reading,
        }
        let Content::Reading(next, _) = &mut self.content else {
            return Poll::Ready(None);
        };
        let Poll::Ready((reader, chunk)) = next.as_mut().poll(context) else {
            return Poll::Pending;
        };
        match chunk {
            Ok(Some(chunk)) => {
                self.content = Content::Object(reader);
                self.hand_out(chunk)
            }
            Ok(None) => Poll::Ready(None),
            Err(error) => {
                log::error!("a download breaks off: {error}");
                if let Some(observed) = &self.observed {
                    observed.failed();
                }
                self.content = Content::Over;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining())
    }
}

/// Longest reading of a body that nobody wants, so that the client sees the answer.
const LINGER: Duration = Duration::from_secs(30);

/// The body of a request. One that is dropped before its end is read on for a while over HTTP/1,
/// where closing the connection with unread bytes would make the client miss the answer.
#[derive(Debug)]
pub(crate) struct Received {
    body: Option<Incoming>,
    activity: Arc<Activity>,
    /// Most bytes read for nothing.
    linger: u64,
}

/// Why a body did not come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It came too slowly.
    Slow,
    /// The client gave up, or broke the protocol.
    Ended,
}

impl Received {
    /// `linger`: most bytes that are read for nothing; 0 where that is no use.
    pub(crate) fn new(body: Incoming, activity: &Arc<Activity>, linger: u64) -> Self {
        Self {
            body: Some(body),
            activity: Arc::clone(activity),
            linger,
        }
    }

    /// The declared length.
    pub(crate) fn length(&self) -> Option<u64> {
        self.body.as_ref().and_then(|body| body.size_hint().exact())
    }

    /// The next bytes, `None` at the end.
    pub(crate) async fn next(&mut self, pace: &mut Pace) -> Result<Option<Bytes>, Broken> {
        let next = tokio::time::timeout_at(pace.deadline(), self.next_frame()).await;
        let next = next.unwrap_or(Err(Broken::Slow));
        match &next {
            Ok(Some(bytes)) => pace.came(bytes.len()),
            // Nothing is left that one could linger for.
            Ok(None) | Err(Broken::Ended) => self.body = None,
            Err(Broken::Slow) => self.linger = 0,
        }
        next
    }

    async fn next_frame(&mut self) -> Result<Option<Bytes>, Broken> {
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        loop {
            match body.frame().await {
                None => return Ok(None),
                Some(Err(_)) => return Err(Broken::Ended),
                Some(Ok(frame)) => {
                    self.activity.moved();
                    // Anything else is trailers.
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take() else {
            return;
        };
        let (mut left, activity) = (self.linger, Arc::clone(&self.activity));
        if left == 0 || body.is_end_stream() {
            return;
        }
        // Without a runtime the program is ending.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(tokio::time::timeout_at(
            Instant::now() + LINGER,
            async move {
                while let Some(Ok(frame)) = body.frame().await {
                    activity.moved();
                    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                    left = left.saturating_sub(length);
                    if left == 0 {
                        break;
                    }
                }
                Ok::<_, Infallible>(())
            },
        ));
    }
}
