//! As much of Thrift's binary protocol as a client of a metastore needs: calls, and answers that are read as they come. Whatever
//! lengths an answer gives, nothing is kept before it is there.

use std::io;

use nexus_flight_catalog::error::shortened;
use nexus_flight_catalog::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy_buf, sink};

/// The most bytes of one answer.
const LARGEST: u64 = 64 * 1024 * 1024;
/// The most texts of one list.
const MOST_TEXTS: u64 = 1_000_000;
/// How deep values may be within others.
const DEEPEST: usize = 64;
/// How much is shown of what a server says.
const LONGEST_SAID: usize = 500;

/// The version of the strict protocol; the kind of the message is in its last byte.
const VERSION: u32 = 0x8001_0000;
const CALL: u32 = 1;
const REPLY: u32 = 2;
const EXCEPTION: u32 = 3;

/// Why a server answers by an exception that no call declares: it does not have the call.
const UNKNOWN_METHOD: i32 = 1;

/// Behind the last field of a struct.
const STOP: u8 = 0;

// The types of values.
const BOOL: u8 = 2;
const BYTE: u8 = 3;
const DOUBLE: u8 = 4;
const I16: u8 = 6;
pub(super) const I32: u8 = 8;
pub(super) const I64: u8 = 10;
pub(super) const TEXT: u8 = 11;
pub(super) const STRUCT: u8 = 12;
pub(super) const MAP: u8 = 13;
const SET: u8 = 14;
pub(super) const LIST: u8 = 15;

/// A call as it is sent. Its arguments are the fields of a struct, which has to be ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    name: &'static str,
    bytes: Vec<u8>,
}

impl Call {
    pub(super) fn new(name: &'static str) -> Self {
        let mut call = Self { name, bytes: Vec::new() };
        call.bytes.extend((VERSION | CALL).to_be_bytes());
        call.put(name);
        // Its number, by which nobody tells it from others: there is one at a time.
        call.bytes.extend(0_u32.to_be_bytes());
        call
    }

    /// A field that is a text.
    pub(super) fn text(mut self, id: i16, text: &str) -> Self {
        self.field(TEXT, id);
        self.put(text);
        self
    }

    /// A field that is a list of texts.
    pub(super) fn texts(mut self, id: i16, texts: &[String]) -> Self {
        self.field(LIST, id);
        self.bytes.push(TEXT);
        self.length(texts.len());
        for text in texts {
            self.put(text);
        }
        self
    }

    /// A field that is a list of numbers.
    pub(super) fn numbers(mut self, id: i16, numbers: &[i32]) -> Self {
        self.field(LIST, id);
        self.bytes.push(I32);
        self.length(numbers.len());
        for number in numbers {
            self.bytes.extend(number.to_be_bytes());
        }
        self
    }

    /// A field that is a number, of 32 bits or of 64.
    pub(super) fn number(mut self, id: i16, number: i32) -> Self {
        self.field(I32, id);
        self.bytes.extend(number.to_be_bytes());
        self
    }

    pub(super) fn long(mut self, id: i16, number: i64) -> Self {
        self.field(I64, id);
        self.bytes.extend(number.to_be_bytes());
        self
    }

    /// A field that is a map of texts.
    pub(super) fn pairs<'a>(mut self, id: i16, pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>) -> Self {
        self.field(MAP, id);
        self.bytes.extend([TEXT, TEXT]);
        self.length(pairs.len());
        for (key, value) in pairs {
            self.put(key);
            self.put(value);
        }
        self
    }

    /// Fields as they were read.
    pub(super) fn fields(mut self, fields: &[u8]) -> Self {
        self.bytes.extend_from_slice(fields);
        self
    }

    /// A field that is a struct: what follows is in it, until it is ended.
    pub(super) fn begin(mut self, id: i16) -> Self {
        self.field(STRUCT, id);
        self
    }

    /// A field that is a list of one struct, in which is what follows.
    pub(super) fn begin_only(mut self, id: i16) -> Self {
        self.field(LIST, id);
        self.bytes.push(STRUCT);
        self.length(1);
        self
    }

    /// Ends a struct, or at last the arguments.
    pub(super) fn end(mut self) -> Self {
        self.bytes.push(STOP);
        self
    }

    fn field(&mut self, kind: u8, id: i16) {
        self.bytes.push(kind);
        self.bytes.extend(id.to_be_bytes());
    }

    fn put(&mut self, text: &str) {
        self.length(text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn length(&mut self, length: usize) {
        self.bytes.extend((length as u32).to_be_bytes());
    }
}

/// What has come of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is done, and returns nothing.
    Done,
    /// It returns a value of this type, which is to be read next, and the end after it.
    Value(u8),
    /// It has thrown the exception that is declared under this number.
    Thrown { number: i16, message: String },
}

/// What a value is in, as it is left out.
enum Within {
    Struct,
    /// As many items, which are of the first type and of the second by turns.
    Items {
        kinds: [u8; 2],
        left: u64,
    },
}

/// The answers that a server gives, one after the other. After an error nothing more can be read of them.
pub(super) struct Answers<S> {
    stream: BufReader<S>,
    /// How many bytes the answer may have still.
    left: u64,
    /// What is left out now, where it is to be kept.
    kept: Option<Vec<u8>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Answers<S> {
    /// Sends a call, and reads its answer up to what it returns. Errors: `Unavailable` where the connection breaks off or the server
    /// has failed, `Unsupported` where it does not have the call, `Data` for what is no answer.
    pub(super) async fn call(&mut self, call: &Call) -> Result<Outcome> {
        self.stream.write_all(&call.bytes).await.map_err(broken)?;
        self.stream.flush().await.map_err(broken)?;
        self.begin(call.name).await
    }
}

impl<S: AsyncRead + Unpin> Answers<S> {
    /// Of a connection.
    pub(super) fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream), left: LARGEST, kept: None }
    }

    async fn begin(&mut self, name: &str) -> Result<Outcome> {
        self.left = LARGEST;
        let head = u32::from_be_bytes(self.take::<4>().await?);
        if head & 0xffff_0000 != VERSION {
            return Err(wrong("it does not begin as one"));
        }
        let answered = self.text().await?;
        self.pass(4).await?;
        match head & 0xff {
            EXCEPTION => {
                let (message, code) = self.exception().await?;
                return Err(match code {
                    UNKNOWN_METHOD => Error::unsupported(format!("the metastore has no call {name}: {message}"))
                        .with_hint("metastores of Hive from 2.3 on are read"),
                    _ => Error::unavailable(format!("the metastore has failed: {message}")),
                });
            }
            REPLY if answered == name => {}
            _ => return Err(wrong("it answers another call")),
        }
        match self.field().await? {
            Some((kind, 0)) => Ok(Outcome::Value(kind)),
            Some((STRUCT, number)) => {
                let (message, _) = self.exception().await?;
                self.end().await?;
                Ok(Outcome::Thrown { number, message })
            }
            Some(_) => Err(wrong("it returns what no call does")),
            None => Ok(Outcome::Done),
        }
    }

    /// The fields of an exception: what it says, and the code of one that no call declares.
    async fn exception(&mut self) -> Result<(String, i32)> {
        let (mut message, mut code) = (String::new(), 0);
        while let Some((kind, id)) = self.field().await? {
            match (kind, id) {
                (TEXT, 1) => message = self.text().await?,
                (I32, 2) => code = self.number().await?,
                _ => self.skip(kind).await?,
            }
        }
        let line = message.lines().next().unwrap_or_default().trim_end_matches('.');
        Ok((shortened(line.to_owned(), LONGEST_SAID), code))
    }

    /// The type and the number of the next field of a struct; none at its end.
    pub(super) async fn field(&mut self) -> Result<Option<(u8, i16)>> {
        let [kind] = self.take::<1>().await?;
        if kind == STOP {
            return Ok(None);
        }
        Ok(Some((kind, i16::from_be_bytes(self.take::<2>().await?))))
    }

    /// Leaves out what is there up to the end of a struct.
    pub(super) async fn end(&mut self) -> Result<()> {
        self.skip(STRUCT).await
    }

    /// The beginning of a list: the type of its items, and how many follow.
    pub(super) async fn list(&mut self) -> Result<(u8, u64)> {
        let [kind] = self.take::<1>().await?;
        Ok((kind, self.count().await?))
    }

    /// The beginning of a map: the types of keys and values, and how many pairs of them follow.
    pub(super) async fn map(&mut self) -> Result<([u8; 2], u64)> {
        let kinds = self.take::<2>().await?;
        Ok((kinds, self.count().await?))
    }

    /// Goes to the next field of a struct that is its first, a list of structs, and leaves out others before it: how many follow; none
    /// at the end of the struct.
    pub(super) async fn structs(&mut self) -> Result<Option<u64>> {
        while let Some((kind, id)) = self.field().await? {
            if id == 1 {
                check(kind, LIST)?;
                let (kind, count) = self.list().await?;
                if count > 0 {
                    check(kind, STRUCT)?;
                }
                return Ok(Some(count));
            }
            self.skip(kind).await?;
        }
        Ok(None)
    }

    /// A list of texts.
    pub(super) async fn texts(&mut self) -> Result<Vec<String>> {
        let (kind, count) = self.list().await?;
        if count > MOST_TEXTS {
            return Err(wrong("it lists more than a million names"));
        }
        let mut texts = Vec::new();
        for _ in 0..count {
            check(kind, TEXT)?;
            texts.push(self.text().await?);
        }
        Ok(texts)
    }

    /// A number of 32 bits.
    pub(super) async fn number(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take::<4>().await?))
    }

    /// A number of 64 bits.
    pub(super) async fn long(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take::<8>().await?))
    }

    /// A value as it came, whatever is in it.
    pub(super) async fn raw(&mut self, kind: u8) -> Result<Vec<u8>> {
        self.kept = Some(Vec::new());
        self.skip(kind).await?;
        Ok(self.kept.take().unwrap_or_default())
    }

    /// A text.
    pub(super) async fn text(&mut self) -> Result<String> {
        let length = self.count().await?;
        self.spend(length)?;
        let mut bytes = Vec::new();
        let read = AsyncReadExt::take(&mut self.stream, length).read_to_end(&mut bytes).await.map_err(broken)?;
        if (read as u64) < length {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        String::from_utf8(bytes).map_err(|_| wrong("a text in it is not UTF-8"))
    }

    /// Leaves a value out, with all that is in it.
    pub(super) async fn skip(&mut self, kind: u8) -> Result<()> {
        let mut within = vec![Within::Items { kinds: [kind; 2], left: 1 }];
        while let Some(innermost) = within.last_mut() {
            let next = match innermost {
                Within::Struct => self.field().await?.map(|(kind, _)| kind),
                Within::Items { left: 0, .. } => None,
                Within::Items { kinds: [first, second], left } => {
                    let next = if left.is_multiple_of(2) { *first } else { *second };
                    *left -= 1;
                    Some(next)
                }
            };
            match next {
                None => {
                    within.pop();
                }
                Some(BOOL | BYTE) => self.pass(1).await?,
                Some(I16) => self.pass(2).await?,
                Some(I32) => self.pass(4).await?,
                Some(I64 | DOUBLE) => self.pass(8).await?,
                Some(TEXT) => {
                    let length = self.count().await?;
                    self.pass(length).await?;
                }
                Some(STRUCT) => within.push(Within::Struct),
                Some(LIST | SET) => {
                    let (kind, left) = self.list().await?;
                    within.push(Within::Items { kinds: [kind; 2], left });
                }
                Some(MAP) => {
                    let (kinds, pairs) = self.map().await?;
                    within.push(Within::Items { kinds, left: pairs.saturating_mul(2) });
                }
                Some(_) => return Err(wrong("there is a value of an unknown type in it")),
            }
            if within.len() > DEEPEST {
                return Err(wrong("values in it are too deep within others"));
            }
        }
        Ok(())
    }

    /// How many bytes or values follow, each of which has one byte at least.
    async fn count(&mut self) -> Result<u64> {
        let count = self.number().await?;
        let count = u64::try_from(count).map_err(|_| wrong("a length in it is below zero"))?;
        if count > self.left { Err(too_long()) } else { Ok(count) }
    }

    async fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.spend(N as u64)?;
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).await.map_err(broken)?;
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(&bytes);
        }
        Ok(bytes)
    }

    async fn pass(&mut self, bytes: u64) -> Result<()> {
        self.spend(bytes)?;
        let mut passing = AsyncReadExt::take(&mut self.stream, bytes);
        let passed = match &mut self.kept {
            Some(kept) => copy_buf(&mut passing, kept).await,
            None => copy_buf(&mut passing, &mut sink()).await,
        };
        let passed = passed.map_err(broken)?;
        if passed < bytes { Err(broken(io::ErrorKind::UnexpectedEof.into())) } else { Ok(()) }
    }

    fn spend(&mut self, bytes: u64) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(too_long)?;
        Ok(())
    }
}

/// Errors: `Data` where a value has another type than it should.
pub(super) fn check(kind: u8, wanted: u8) -> Result<()> {
    if kind == wanted { Ok(()) } else { Err(wrong("a value in it is of another type than it should be")) }
}

/// An answer that is none.
pub(super) fn wrong(why: &str) -> Error {
    Error::data(format!("the answer cannot be understood: {why}"))
        .with_hint("check uri: what is spoken is Thrift's binary protocol, without SASL, TLS, frames or HTTP")
}

fn too_long() -> Error {
    wrong("it is longer than 64 MiB")
}

/// A connection that is no more.
fn broken(cause: io::Error) -> Error {
    let message = match cause.kind() {
        io::ErrorKind::UnexpectedEof => "the metastore has closed the connection before it had answered".to_owned(),
        _ => format!("the connection to the metastore broke off: {cause}"),
    };
    Error::unavailable(message)
        .with_hint("see whether it runs, and whether it asks for SASL or TLS, which are not spoken")
        .caused_by(cause)
}

#[cfg(test)]
mod tests {
    use nexus_flight_catalog::Kind;

    use super::*;

    /// An answer to `get_all_databases`: what comes behind its head.
    fn reply(rest: &[u8]) -> Vec<u8> {
        [&b"\x80\x01\x00\x02\x00\x00\x00\x11get_all_databases\x00\x00\x00\x00"[..], rest].concat()
    }

    async fn names(answer: &[u8]) -> Result<Vec<String>> {
        let mut answers = Answers::new(answer);
        match answers.begin("get_all_databases").await? {
            Outcome::Value(kind) => check(kind, LIST)?,
            Outcome::Thrown { number, message } => return Err(Error::invalid(format!("{number}: {message}"))),
            Outcome::Done => return Err(wrong("it returns nothing")),
        }
        let names = answers.texts().await?;
        answers.end().await?;
        Ok(names)
    }

    /// Leaves out the fields of a struct.
    async fn skipped(fields: &[u8]) -> Result<()> {
        Answers::new(fields).skip(STRUCT).await
    }

    #[test]
    fn a_call_is_its_name_and_arguments() {
        let call = Call::new("ask").begin(1).text(2, "é").texts(3, &["a".to_owned()]).begin(4).numbers(1, &[2]).end().end().end();
        let expected = b"\x80\x01\x00\x01\x00\x00\x00\x03ask\x00\x00\x00\x00\
            \x0c\x00\x01\x0b\x00\x02\x00\x00\x00\x02\xc3\xa9\x0f\x00\x03\x0b\x00\x00\x00\x01\x00\x00\x00\x01a\
            \x0c\x00\x04\x0f\x00\x01\x08\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00";
        assert_eq!(call.bytes, expected);
    }

    #[test]
    fn arguments_of_each_type() {
        let call = Call::new("a").number(1, -2).long(2, 3).pairs(3, [("k", "v")].into_iter());
        let call = call.begin_only(4).fields(b"\x02\x00\x05\x01").end().end();
        let expected = b"\x80\x01\x00\x01\x00\x00\x00\x01a\x00\x00\x00\x00\
            \x08\x00\x01\xff\xff\xff\xfe\x0a\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03\
            \x0d\x00\x03\x0b\x0b\x00\x00\x00\x01\x00\x00\x00\x01k\x00\x00\x00\x01v\
            \x0f\x00\x04\x0c\x00\x00\x00\x01\x02\x00\x05\x01\x00\x00";
        assert_eq!(call.bytes, expected);
    }

    #[tokio::test]
    async fn nothing_is_an_answer_too() {
        let answer = reply(b"\x00");
        assert_eq!(Answers::new(&answer[..]).begin("get_all_databases").await.unwrap(), Outcome::Done);
    }

    #[tokio::test]
    async fn an_answer_is_whole_or_none() {
        let answer = reply(b"\x0f\x00\x00\x0b\x00\x00\x00\x02\x00\x00\x00\x04shop\x00\x00\x00\x03\xe7\xa9\xba\x00");
        assert_eq!(names(&answer).await.unwrap(), ["shop", "空"]);
        for length in 0..answer.len() {
            assert_eq!(names(&answer[..length]).await.unwrap_err().kind(), Kind::Unavailable, "{length}");
        }
        let empty = reply(b"\x0f\x00\x00\x00\x00\x00\x00\x00\x00");
        assert!(names(&empty).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn exceptions_say_what_is_the_matter() {
        let declared = reply(b"\x0c\x00\x02\x0b\x00\x01\x00\x00\x00\x09not here.\x08\x00\x05\x00\x00\x00\x01\x00\x00");
        insta::assert_snapshot!(names(&declared).await.unwrap_err(), @"2: not here");
        let mut unknown = reply(b"\x0b\x00\x01\x00\x00\x00\x02no\x08\x00\x02\x00\x00\x00\x01\x00");
        unknown[3] = 3;
        insta::assert_snapshot!(names(&unknown).await.unwrap_err(), @"the metastore has no call get_all_databases: no; metastores of Hive from 2.3 on are read");
        let failed = [&unknown[..unknown.len() - 2], &b"\x06\x00"[..]].concat();
        insta::assert_snapshot!(names(&failed).await.unwrap_err(), @"the metastore has failed: no");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_refused() {
        let wrong = [
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            b"\x80\x01\x00\x02\x7f\xff\xff\xff".to_vec(),
            b"\x80\x01\x00\x02\x00\x00\x00\x01x\x00\x00\x00\x00\x00".to_vec(),
            reply(b"\x00"),
            reply(b"\x08\x00\x01\x00\x00\x00\x00"),
            reply(b"\x08\x00\x00\x00\x00\x00\x00"),
            reply(b"\x0f\x00\x00\x0b\x7f\xff\xff\xff"),
            reply(b"\x0f\x00\x00\x0b\xff\xff\xff\xff"),
            reply(b"\x0f\x00\x00\x08\x00\x00\x00\x01\x00\x00\x00\x01\x00"),
            reply(b"\x0f\x00\x00\x0b\x00\x00\x00\x01\x00\x00\x00\x01\xff\x00"),
        ];
        for answer in wrong {
            assert_eq!(names(&answer).await.unwrap_err().kind(), Kind::Data, "{answer:x?}");
        }
    }

    #[tokio::test]
    async fn values_of_each_type_are_left_out() {
        let fields = b"\x02\x00\x01\x01\x03\x00\x02\x07\x04\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x06\x00\x04\x00\x00\
            \x08\x00\x05\x00\x00\x00\x00\x0a\x00\x06\x00\x00\x00\x00\x00\x00\x00\x00\x0b\x00\x07\x00\x00\x00\x01a\
            \x0d\x00\x08\x0b\x02\x00\x00\x00\x02\x00\x00\x00\x01a\x01\x00\x00\x00\x01b\x00\
            \x0e\x00\x09\x0c\x00\x00\x00\x02\x00\x02\x00\x01\x01\x00\x0f\x00\x0a\x0f\x00\x00\x00\x01\x03\x00\x00\x00\x01\x05\x00";
        skipped(fields).await.unwrap();
        assert_eq!(Answers::new(&fields[..]).raw(STRUCT).await.unwrap(), fields);
        for length in 0..fields.len() {
            assert_eq!(skipped(&fields[..length]).await.unwrap_err().kind(), Kind::Unavailable, "{length}");
        }
        assert_eq!(skipped(b"\x01\x00\x01\x00").await.unwrap_err().kind(), Kind::Data);
        assert_eq!(skipped(&b"\x0c\x00\x07".repeat(100_000)).await.unwrap_err().kind(), Kind::Data);
    }
}
