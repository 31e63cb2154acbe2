//! The session messages of Flight.proto, which arrow-flight does not have: `SetSessionOptions`, `GetSessionOptions` and
//! `CloseSession` of <https://arrow.apache.org/docs/format/Flight.html>.

use std::collections::HashMap;

/// `arrow.flight.protocol.SetSessionOptionsRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetSessionOptionsRequest {
    /// The options by name.
    #[prost(map = "string, message", tag = "1")]
    pub session_options: HashMap<String, SessionOptionValue>,
}

/// `arrow.flight.protocol.SessionOptionValue`; without a value the option is unset.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SessionOptionValue {
    /// The value.
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    pub option_value: Option<OptionValue>,
}

/// The value of a session option.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum OptionValue {
    /// Text.
    #[prost(string, tag = "1")]
    Text(String),
    /// A truth value.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// A whole number.
    #[prost(sfixed64, tag = "3")]
    Int64(i64),
    /// A number.
    #[prost(double, tag = "4")]
    Double(f64),
    /// Texts.
    #[prost(message, tag = "5")]
    Texts(StringListValue),
}

/// `arrow.flight.protocol.SessionOptionValue.StringListValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StringListValue {
    /// The texts.
    #[prost(string, repeated, tag = "1")]
    pub values: Vec<String>,
}

/// `arrow.flight.protocol.SetSessionOptionsResult`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetSessionOptionsResult {
    /// What was not set, by name.
    #[prost(map = "string, message", tag = "1")]
    pub errors: HashMap<String, OptionError>,
}

/// `arrow.flight.protocol.SetSessionOptionsResult.Error`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct OptionError {
    /// What is wrong.
    #[prost(enumeration = "OptionErrorValue", tag = "1")]
    pub value: i32,
}

/// `arrow.flight.protocol.SetSessionOptionsResult.ErrorValue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum OptionErrorValue {
    /// Not said.
    Unspecified = 0,
    /// There is no such option.
    InvalidName = 1,
    /// The option does not take this value.
    InvalidValue = 2,
    /// Anything else.
    Error = 3,
}

/// `arrow.flight.protocol.GetSessionOptionsResult`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetSessionOptionsResult {
    /// The options by name.
    #[prost(map = "string, message", tag = "1")]
    pub session_options: HashMap<String, SessionOptionValue>,
}

/// `arrow.flight.protocol.CloseSessionResult`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct CloseSessionResult {
    /// How it went.
    #[prost(enumeration = "CloseStatus", tag = "1")]
    pub status: i32,
}

/// `arrow.flight.protocol.CloseSessionResult.Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum CloseStatus {
    /// Not said.
    Unspecified = 0,
    /// It is closed.
    Closed = 1,
    /// It will be.
    Closing = 2,
    /// It cannot be.
    NotCloseable = 3,
}

impl From<&str> for SessionOptionValue {
    fn from(text: &str) -> Self {
        Self { option_value: Some(OptionValue::Text(text.to_owned())) }
    }
}
