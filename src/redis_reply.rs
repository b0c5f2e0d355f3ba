//! What Redis answers, taken apart; and tips as texts that Redis can compare.
//!
//! Invariant: an answer of another form is an error, never a panic and never taken for something else.

use std::vec::IntoIter;

use ::redis::Value;
use bytes::Bytes;

use crate::model::applied::{Applied, Progress};
use crate::model::codec::{self, CodecError};
use crate::model::id::{SourceId, Tip};

/// What stands in a place that was never written to.
pub const NOWHERE: &str = "00000000000000000000.00000000000000000000";

/// Two numbers of twenty digits: the order of such texts is the order of tips. (Lua's numbers hold 53 bits only.)
pub fn tip_text(tip: Tip) -> String {
    format!("{:020}.{:020}", tip.epoch, tip.number)
}

pub fn parse_tip(text: &str) -> Result<Tip, CodecError> {
    let parsed = text.split_once('.').and_then(|(epoch, number)| {
        let tip = Tip::new(epoch.parse().ok()?, number.parse().ok()?);
        (text.len() == NOWHERE.len()).then_some(tip)
    });
    parsed.ok_or_else(|| CodecError::malformed("tip", format!("{text:?}")))
}

/// How a source is named in a hash.
pub fn source_field(source: &SourceId) -> Bytes {
    codec::to_bytes(source).into()
}

pub fn progress_value(source: &SourceId, progress: &Progress) -> Bytes {
    codec::encode(&(source, progress)).into()
}

/// Adds what `progress_value` wrote.
pub fn add_progress(applied: &mut Applied, value: &[u8]) -> Result<(), CodecError> {
    let source: (SourceId, Progress) = codec::decode("source", value)?;
    applied.merge_delta(&[source]);
    Ok(())
}

fn unexpected(wanted: &str, value: &Value) -> CodecError {
    let kind = match value {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::Okay | Value::VerbatimString { .. } => "a string",
        Value::Array(_) => "a list",
        _ => "something else",
    };
    CodecError::malformed("answer of Redis", format!("{kind} instead of {wanted}"))
}

/// `None` for nil.
pub fn bytes(value: Value) -> Result<Option<Bytes>, CodecError> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(Some(text.into())),
        Value::Okay => Ok(Some(Bytes::from_static(b"OK"))),
        Value::Int(number) => Ok(Some(number.to_string().into())),
        other => Err(unexpected("a string", &other)),
    }
}

/// Empty for nil.
pub fn text(value: Value) -> Result<String, CodecError> {
    let bytes = bytes(value)?.unwrap_or_default();
    String::from_utf8(bytes.into()).map_err(|error| CodecError::malformed("answer of Redis", error))
}

/// A list, read from its front.
#[derive(Debug)]
pub struct List(IntoIter<Value>);

impl List {
    pub fn of(value: Value) -> Result<Self, CodecError> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            other => Err(unexpected("a list", &other)),
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn value(&mut self) -> Result<Value, CodecError> {
        self.0.next().ok_or_else(|| CodecError::malformed("answer of Redis", "it is too short"))
    }

    pub fn bytes(&mut self) -> Result<Option<Bytes>, CodecError> {
        bytes(self.value()?)
    }

    /// Empty for nil.
    pub fn text(&mut self) -> Result<String, CodecError> {
        text(self.value()?)
    }

    /// `None` for nil and for an empty text.
    pub fn number<N: std::str::FromStr>(&mut self) -> Result<Option<N>, CodecError> {
        match self.text()? {
            text if text.is_empty() => Ok(None),
            text => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(CodecError::malformed("answer of Redis", format!("{text:?} instead of a number"))),
            },
        }
    }

    /// The untouched tip for nil.
    pub fn tip(&mut self) -> Result<Tip, CodecError> {
        match self.text()? {
            text if text.is_empty() => Ok(Tip::default()),
            text => parse_tip(&text),
        }
    }

    pub fn list(&mut self) -> Result<Self, CodecError> {
        Self::of(self.value()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_texts_is_the_order_of_tips() {
        let numbers = [0, 1, 9, 10, 1 << 53, (1 << 53) + 1, u64::MAX];
        let tips: Vec<Tip> = numbers.iter().flat_map(|&epoch| numbers.map(|number| Tip::new(epoch, number))).collect();
        let texts: Vec<String> = tips.iter().map(|tip| tip_text(*tip)).collect();
        assert!(tips.is_sorted() && texts.is_sorted());
        assert!(tips.iter().zip(&texts).all(|(tip, text)| parse_tip(text) == Ok(*tip)));
        assert_eq!(tip_text(Tip::default()), NOWHERE);
        for text in ["", "1.2", ".", &NOWHERE[1..], &NOWHERE.replace('.', "0")] {
            assert!(parse_tip(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_of_another_form_is_an_error() {
        assert!(List::of(Value::Nil).is_err());
        assert!(bytes(Value::Array(vec![])).is_err());
        let mut list = List::of(Value::Array(vec![Value::BulkString(b"x".to_vec()), Value::Nil])).unwrap();
        assert!(list.number::<u64>().is_err());
        assert_eq!((list.number::<u64>(), list.len()), (Ok(None), 0));
        assert!(list.value().is_err());
    }
}
