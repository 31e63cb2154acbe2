//! A channel that keeps the cookies of its server, so that a session goes on from call to call (RFC 6265, the name and the value
//! of each: there is one server, and it does not look at more).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderValue, Request, Response};
use tonic::codegen::Service;

/// The most cookies that are kept.
const MOST: usize = 16;

/// A channel with what its server has set.
#[derive(Debug, Clone)]
pub(super) struct Cookies<S> {
    inner: S,
    kept: Arc<Mutex<BTreeMap<String, String>>>,
}

impl<S> Cookies<S> {
    /// A channel that has none yet.
    pub(super) fn new(inner: S) -> Self {
        Self { inner, kept: Arc::default() }
    }
}

impl<S, B, C> Service<Request<B>> for Cookies<S>
where
    S: Service<Request<B>, Response = Response<C>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let kept = Arc::clone(&self.kept);
        let header = {
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
        };
        if let (false, Ok(mut header)) = (header.is_empty(), HeaderValue::try_from(header)) {
            header.set_sensitive(true);
            request.headers_mut().insert(COOKIE, header);
        }
        let response = self.inner.call(request);
        async move {
            let response = response.await?;
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            for set in response.headers().get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
                let pair = set.split(';').next().and_then(|pair| pair.trim().split_once('='));
                if let Some((name, value)) = pair.filter(|(name, _)| kept.len() < MOST || kept.contains_key(*name)) {
                    kept.insert(name.to_owned(), value.to_owned());
                }
            }
            drop(kept);
            Ok(response)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Answers with what it got, and sets a cookie.
    #[derive(Clone)]
    struct Echo;

    impl Service<Request<()>> for Echo {
        type Response = Response<String>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<String>, Infallible>>;

        fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            let sent = request.headers().get(COOKIE).map_or("", |value| value.to_str().unwrap()).to_owned();
            let number = sent.len();
            let set = format!("session=s{number}; Path=/; HttpOnly");
            std::future::ready(Ok(Response::builder().header(SET_COOKIE, set).header(SET_COOKIE, "b=2").body(sent).unwrap()))
        }
    }

    #[tokio::test]
    async fn what_is_set_is_sent_and_the_latest_counts() {
        let mut channel = Cookies::new(Echo);
        let mut sent = Vec::new();
        for _ in 0..3 {
            sent.push(channel.call(Request::new(())).await.unwrap().into_body());
        }
        assert_eq!(sent, ["", "b=2; session=s0", "b=2; session=s15"]);
    }
}
