//! The headers about the cache, on Flight and HTTP alike: what a client wants of it, and what it had to do with an answer.

use http::HeaderMap;
use nexus_flight_catalog::{Error, Result};

use crate::query::Cached;
use crate::session::cache_control::{CacheControl, tag};
use crate::session::options::Options;

/// The header that says what a call wants, as the session option `cache` does.
pub const CONTROL: &str = "cache-control";
/// The header that names the answers of a call, as the session option `cache_tag` does.
pub const TAG: &str = "x-nexus-cache-tag";
/// The header that says what the cache had to do with an answer.
const CACHE: &str = "x-nexus-cache";
/// The header that says how old an answer is, in seconds.
const AGE: &str = "age";
/// The header that says for how long an answer may be out of date at most, in milliseconds.
const BOUND: &str = "x-nexus-cache-bound";
/// The header that says why an answer was made past the cache, or not for its statement alone.
const REASON: &str = "x-nexus-cache-reason";

/// What the headers of one call want, which goes before what its session does.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    control: Option<CacheControl>,
    tag: Option<String>,
}

impl Asked {
    /// What headers say. Errors: `Invalid` for one that does not fit.
    pub fn of(headers: &HeaderMap) -> Result<Self> {
        let control = text(headers, CONTROL)?.map(|text| CacheControl::of_header(&text)).transpose()?;
        Ok(Self { control, tag: text(headers, TAG)?.map(|text| tag(&text)).transpose()? })
    }

    /// Sets it in the options of a call.
    pub fn over(&self, options: &mut Options) {
        options.cache = self.control.or(options.cache);
        if let Some(tag) = &self.tag {
            options.cache_tag = Some(tag.clone());
        }
    }
}

/// The text of a header, whose list may stand in several lines.
fn text(headers: &HeaderMap, name: &str) -> Result<Option<String>> {
    let wrong = || Error::invalid(format!("the header {name} is not text"));
    let lines = headers.get_all(name).iter().map(|line| line.to_str().map_err(|_| wrong()));
    let lines: Vec<&str> = lines.collect::<Result<_>>()?;
    Ok((!lines.is_empty()).then(|| lines.join(",")))
}

/// The headers of an answer.
pub fn told(cached: &Cached) -> Vec<(&'static str, String)> {
    let age = cached.age.map(|age| (AGE, age.as_secs().to_string()));
    // The last of them counts whole: it is a bound.
    let bound = cached.bound.map(|bound| (BOUND, bound.as_micros().div_ceil(1_000).to_string()));
    let why = cached.why.map(|why| (REASON, why.to_owned()));
    [Some((CACHE, cached.how.name().to_owned())), age, bound, why].into_iter().flatten().collect()
}

/// What the headers of an answer say that the cache did, in words for people; none where they say nothing of it.
pub fn words(headers: &HeaderMap) -> Option<String> {
    let said = |name: &'static str| headers.get(name).and_then(|value| value.to_str().ok());
    let age = said(AGE).map(|age| format!(", {age} s old"));
    let why = said(REASON).map(|why| format!(": {why}"));
    Some(format!("cache {}{}{}", said(CACHE)?, age.unwrap_or_default(), why.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::query::CacheUse;

    fn asked(headers: &[(&'static str, &'static str)]) -> Result<Options> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let mut options = Options { cache: Some("max-age=1".parse().unwrap()), ..Options::default() };
        Asked::of(&map)?.over(&mut options);
        Ok(options)
    }

    #[test]
    fn headers_go_before_the_session() {
        assert_eq!(asked(&[]).unwrap().get("cache").unwrap(), "max-age=1");
        let lines = [("cache-control", "max-stale=5"), ("cache-control", "no-cache"), ("x-nexus-cache-tag", "nightly")];
        let options = asked(&lines).unwrap();
        let set = ["cache", "cache_tag"].map(|name| options.get(name).unwrap());
        assert_eq!(set, ["no-cache, max-stale=5", "nightly"]);
        for wrong in [("cache-control", "max-age=soon"), ("cache-control", "\u{e4}"), ("x-nexus-cache-tag", "")] {
            asked(&[wrong]).unwrap_err();
        }
    }

    #[test]
    fn an_answer_says_what_the_cache_did() {
        let (age, bound) = (Some(Duration::from_millis(2_999)), Some(Duration::from_micros(1_001)));
        let stale = Cached { how: CacheUse::Stale, age, bound, why: None };
        let told_of_it = [("x-nexus-cache", "stale"), ("age", "2"), ("x-nexus-cache-bound", "2")];
        assert_eq!(told(&stale), told_of_it.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(in_words(&stale), "cache stale, 2 s old");
        let past = Cached { why: Some("it writes"), ..Cached::default() };
        assert_eq!(told(&past), [("x-nexus-cache", "bypass".to_owned()), ("x-nexus-cache-reason", "it writes".to_owned())]);
        assert_eq!(in_words(&past), "cache bypass: it writes");
        assert_eq!(words(&HeaderMap::new()), None);
    }

    fn in_words(cached: &Cached) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in told(cached) {
            headers.insert(name, value.parse().unwrap());
        }
        words(&headers).unwrap()
    }
}
