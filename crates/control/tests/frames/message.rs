//! Messages that have the right form and the wrong content.

use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};
use rand::Rng as _;
use rand::rngs::StdRng;

/// Fields of fields of fields are enough.
const DEEPEST: usize = 5;
/// Ids that are remembered.
const IDS: usize = 500;
const TEXTS: [&str; 22] = [
    "",
    "main",
    "name",
    "fu-nothing",
    "../../etc/passwd",
    "/a/../b",
    "/",
    "a b\tc",
    "\0",
    "ä→😀\u{202e}",
    "*",
    "${A:-${B}}",
    "FROM python:3.11",
    "RUN echo x",
    "COPY . /x",
    "9223372036854775807",
    "-1",
    "1e400",
    "0-0",
    "18446744073709551615-0",
    "2024.10",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
];
const INTEGERS: [i64; 14] =
    [0, 0, 1, 1, 2, 3, 5, 100, -1, 1 << 20, 1 << 40, i64::MAX, i64::MIN, 4_294_967_295];
const NUMBERS: [f64; 10] =
    [0.0, 0.01, 1.0, -1.0, 1e300, -1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE];

/// Makes requests, and learns ids from answers.
pub(crate) struct Messages {
    random: StdRng,
    ids: Vec<String>,
}

impl Messages {
    pub(crate) fn new(random: StdRng) -> Messages {
        Messages { random, ids: Vec::new() }
    }

    pub(crate) fn ids(&self) -> usize {
        self.ids.len()
    }

    /// The bytes of a request; now and then they are none.
    pub(crate) fn request(&mut self, kind: &MessageDescriptor) -> Vec<u8> {
        let mut bytes = self.message(kind, 0).encode_to_vec();
        if self.random.random_range(0..20) == 0 && !bytes.is_empty() {
            let at = self.random.random_range(0..bytes.len());
            bytes[at] = self.random.random();
        }
        bytes
    }

    fn message(&mut self, kind: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(kind.clone());
        // Some messages are nearly empty, some nearly full.
        let share = [0.15, 0.5, 0.9][self.random.random_range(0..3_usize)];
        for field in kind.fields() {
            if self.random.random_bool(share) {
                let value = self.field(&field, depth);
                if let Some(value) = value {
                    message.set_field(&field, value);
                }
            }
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor, depth: usize) -> Option<Value> {
        let length = [0, 1, 1, 2, 3, 40][self.random.random_range(0..6_usize)];
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return None };
            let value = entry.map_entry_value_field();
            let pairs = (0..length).filter_map(|_| {
                let value = self.value(&value.kind(), depth + 1)?;
                Some((MapKey::String(self.text()), value))
            });
            let pairs: std::collections::HashMap<_, _> = pairs.collect();
            let is_text = matches!(entry.map_entry_key_field().kind(), Kind::String);
            return is_text.then_some(Value::Map(pairs));
        }
        if field.is_list() {
            let kind = field.kind();
            return Some(Value::List((0..length).filter_map(|_| self.value(&kind, depth + 1)).collect()));
        }
        self.value(&field.kind(), depth)
    }

    fn value(&mut self, kind: &Kind, depth: usize) -> Option<Value> {
        let integer = INTEGERS[self.random.random_range(0..INTEGERS.len())];
        let number = NUMBERS[self.random.random_range(0..NUMBERS.len())];
        Some(match kind {
            Kind::Double => Value::F64(number),
            Kind::Float => Value::F32(number as f32),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(integer as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(integer),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(integer as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(integer as u64),
            Kind::Bool => Value::Bool(self.random.random()),
            Kind::String => Value::String(self.text()),
            Kind::Bytes => {
                let length = [0, 1, 32, 1000][self.random.random_range(0..4_usize)];
                Value::Bytes((0..length).map(|_| self.random.random()).collect::<Vec<u8>>().into())
            }
            Kind::Enum(kind) => {
                let known: Vec<i32> = kind.values().map(|value| value.number()).collect();
                let unknown = self.random.random_range(0..10) == 0;
                Value::EnumNumber(if unknown {
                    4711
                } else {
                    known[self.random.random_range(0..known.len())]
                })
            }
            Kind::Message(_) if depth >= DEEPEST => return None,
            Kind::Message(kind) => Value::Message(self.message(&kind.clone(), depth + 1)),
        })
    }

    fn text(&mut self) -> String {
        let one_of_ours = !self.ids.is_empty() && self.random.random_range(0..10) < 7;
        match self.random.random_range(0..100) {
            0 => "x".repeat(70_000),
            _ if one_of_ours => self.ids[self.random.random_range(0..self.ids.len())].clone(),
            _ => TEXTS[self.random.random_range(0..TEXTS.len())].to_owned(),
        }
    }

    /// Remembers the ids in an answer.
    pub(crate) fn learn(&mut self, kind: &MessageDescriptor, bytes: &[u8]) {
        if let Ok(message) = DynamicMessage::decode(kind.clone(), bytes) {
            self.learn_of(&Value::Message(message));
        }
    }

    fn learn_of(&mut self, value: &Value) {
        match value {
            Value::Message(message) => message.fields().for_each(|(_, value)| self.learn_of(value)),
            Value::List(values) => values.iter().for_each(|value| self.learn_of(value)),
            Value::String(text) if text.as_bytes().get(2) == Some(&b'-') && !self.ids.contains(text) => {
                if self.ids.len() == IDS {
                    let at = self.random.random_range(0..IDS);
                    self.ids.swap_remove(at);
                }
                self.ids.push(text.clone());
            }
            _ => {}
        }
    }
}
