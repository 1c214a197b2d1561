//! One definition per message gives its fields, its encoding, its decoding and its schema.
//!
//! A message is written to a [`Writer`] and read from a [`Reader`] field by field, in order of
//! definition. The bridge implements both over Python dicts, [`crate::codec`] over bytes.
use std::fmt;
use std::sync::Arc;

/// Immutable shared text; cloning it copies no characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Arc<str>);

impl Text {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Text {
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

impl From<&str> for Text {
    fn from(value: &str) -> Self {
        Self(Arc::from(value))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for Text {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

/// What was read does not fit the definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub field: String,
    pub why: String,
}

impl Malformed {
    #[must_use]
    pub fn new(field: &str, why: &str) -> Self {
        Self {
            field: field.to_owned(),
            why: why.to_owned(),
        }
    }
}

/// Where messages go. Elements of a list carry the empty name. The fields of a message come in order
/// of definition; of an absent optional one only its `presence`.
pub trait Writer {
    fn boolean(&mut self, name: &'static str, value: bool);
    fn int(&mut self, name: &'static str, value: i64);
    fn uint(&mut self, name: &'static str, value: u64);
    fn float(&mut self, name: &'static str, value: f64);
    fn text(&mut self, name: &'static str, value: &Text);
    /// Precedes an optional field.
    fn presence(&mut self, present: bool);
    /// Precedes a choice: the index of the alternative that follows.
    fn choice(&mut self, index: u8);
    /// A message of the type `message` begins.
    fn open(&mut self, name: &'static str, message: &'static str);
    fn close(&mut self);
    fn open_list(&mut self, name: &'static str, length: usize);
    fn close_list(&mut self);
}

/// Where messages come from, asked in order of definition: for an optional field first whether it is
/// there, and if it is, for the field. An absent scalar that is not optional reads as zero, as in proto3.
#[expect(
    clippy::missing_errors_doc,
    reason = "every method fails the same way: with what does not fit"
)]
pub trait Reader {
    fn boolean(&mut self, name: &'static str) -> Result<bool, Malformed>;
    fn int(&mut self, name: &'static str) -> Result<i64, Malformed>;
    fn uint(&mut self, name: &'static str) -> Result<u64, Malformed>;
    fn float(&mut self, name: &'static str) -> Result<f64, Malformed>;
    fn text(&mut self, name: &'static str) -> Result<Text, Malformed>;
    fn presence(&mut self, name: &'static str) -> Result<bool, Malformed>;
    fn choice(&mut self, names: &[&'static str]) -> Result<usize, Malformed>;
    fn open(&mut self, name: &'static str, message: &'static str) -> Result<(), Malformed>;
    /// Leaves a message, refusing names that it does not define.
    fn close(&mut self, known: &[&'static str]) -> Result<(), Malformed>;
    fn open_list(&mut self, name: &'static str) -> Result<usize, Malformed>;
    fn close_list(&mut self) -> Result<(), Malformed>;
}

/// A value that can stand in a message.
pub trait Field: Sized {
    /// Its type in words of proto: `uint64`, `optional double`, `repeated PlannedAction`.
    fn kind() -> String;
    fn write(&self, name: &'static str, to: &mut impl Writer);
    /// # Errors
    /// What stands there is no such value.
    fn read(name: &'static str, from: &mut impl Reader) -> Result<Self, Malformed>;
}

/// A struct made by [`messages!`].
pub trait Message: Sized {
    const NAME: &'static str;
    const FIELDS: &'static [&'static str];
    fn kinds() -> Vec<String>;
    fn write_fields(&self, to: &mut impl Writer);
    /// # Errors
    /// A field does not fit; an unknown name is left to [`Reader::close`].
    fn read_fields(from: &mut impl Reader) -> Result<Self, Malformed>;
}

macro_rules! scalar {
    ($type:ty, $kind:literal, $method:ident, |$value:ident| $to:expr, |$raw:ident, $name:ident| $from:expr) => {
        impl Field for $type {
            fn kind() -> String {
                $kind.to_owned()
            }
            fn write(&self, name: &'static str, to: &mut impl Writer) {
                let $value = self;
                to.$method(name, $to);
            }
            fn read($name: &'static str, from: &mut impl Reader) -> Result<Self, Malformed> {
                let $raw = from.$method($name)?;
                $from
            }
        }
    };
}
scalar!(bool, "bool", boolean, |v| *v, |raw, _name| Ok(raw));
scalar!(i64, "int64", int, |v| *v, |raw, _name| Ok(raw));
scalar!(u64, "uint64", uint, |v| *v, |raw, _name| Ok(raw));
scalar!(u32, "uint32", uint, |v| u64::from(*v), |raw, name| {
    u32::try_from(raw).map_err(|_| Malformed::new(name, "does not fit into 32 bits"))
});
scalar!(f64, "double", float, |v| *v, |raw, _name| Ok(raw));
scalar!(Text, "string", text, |v| v, |raw, _name| Ok(raw));

impl<T: Field> Field for Option<T> {
    fn kind() -> String {
        format!("optional {}", T::kind())
    }
    fn write(&self, name: &'static str, to: &mut impl Writer) {
        to.presence(self.is_some());
        if let Some(value) = self {
            value.write(name, to);
        }
    }
    fn read(name: &'static str, from: &mut impl Reader) -> Result<Self, Malformed> {
        if from.presence(name)? {
            T::read(name, from).map(Some)
        } else {
            Ok(None)
        }
    }
}

impl<T: Field> Field for Vec<T> {
    fn kind() -> String {
        format!("repeated {}", T::kind())
    }
    fn write(&self, name: &'static str, to: &mut impl Writer) {
        to.open_list(name, self.len());
        for value in self {
            value.write("", to);
        }
        to.close_list();
    }
    fn read(name: &'static str, from: &mut impl Reader) -> Result<Self, Malformed> {
        let length = from.open_list(name)?;
        let values = (0..length)
            .map(|_| T::read("", from))
            .collect::<Result<_, _>>()?;
        from.close_list()?;
        Ok(values)
    }
}

/// An enumeration of proto; number 0 is never a value of it but means "none" (see [`Maybe`]).
pub trait Number: Copy + 'static {
    const NAME: &'static str;
    const ALL: &'static [(&'static str, Self)];
    fn number(self) -> i32;

    #[must_use]
    fn from_number(number: i64) -> Option<Self> {
        Self::ALL
            .iter()
            .map(|(_, value)| *value)
            .find(|value| i64::from(value.number()) == number)
    }
}

/// An enumeration value, or proto's UNSPECIFIED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maybe<T>(pub Option<T>);

impl<T> Default for Maybe<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> From<T> for Maybe<T> {
    fn from(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T: Number> Field for Maybe<T> {
    fn kind() -> String {
        T::NAME.to_owned()
    }
    fn write(&self, name: &'static str, to: &mut impl Writer) {
        to.int(name, self.0.map_or(0, |value| i64::from(value.number())));
    }
    fn read(name: &'static str, from: &mut impl Reader) -> Result<Self, Malformed> {
        match from.int(name)? {
            0 => Ok(Self(None)),
            number => T::from_number(number)
                .map(|value| Self(Some(value)))
                .ok_or_else(|| Malformed::new(name, "is no value of this enumeration")),
        }
    }
}

/// Defines enumerations by their proto numbers.
#[macro_export]
macro_rules! numbers {
    ($($(#[$meta:meta])* $name:ident { $($variant:ident = $number:literal),+ $(,)? })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($variant = $number),+ }

        impl $crate::message::Number for $name {
            const NAME: &'static str = stringify!($name);
            const ALL: &'static [(&'static str, Self)] = &[$((stringify!($variant), Self::$variant)),+];
            fn number(self) -> i32 {
                self as i32
            }
        }

        impl $crate::message::Field for $name {
            fn kind() -> String {
                stringify!($name).to_owned()
            }
            fn write(&self, name: &'static str, to: &mut impl $crate::message::Writer) {
                to.int(name, i64::from($crate::message::Number::number(*self)));
            }
            fn read(
                name: &'static str,
                from: &mut impl $crate::message::Reader,
            ) -> ::std::result::Result<Self, $crate::message::Malformed> {
                <Self as $crate::message::Number>::from_number(from.int(name)?)
                    .ok_or_else(|| $crate::message::Malformed::new(name, "is no value of this enumeration"))
            }
        }
    )+};
}

/// Defines messages: structs whose fields can be written, read and listed.
#[macro_export]
macro_rules! messages {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type),* }

        impl $crate::message::Message for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),*];
            fn kinds() -> Vec<String> {
                vec![$(<$type as $crate::message::Field>::kind()),*]
            }
            fn write_fields(&self, to: &mut impl $crate::message::Writer) {
                $($crate::message::Field::write(&self.$field, stringify!($field), to);)*
            }
            fn read_fields(
                from: &mut impl $crate::message::Reader,
            ) -> ::std::result::Result<Self, $crate::message::Malformed> {
                Ok(Self { $($field: $crate::message::Field::read(stringify!($field), from)?),* })
            }
        }

        impl $crate::message::Field for $name {
            fn kind() -> String {
                stringify!($name).to_owned()
            }
            fn write(&self, name: &'static str, to: &mut impl $crate::message::Writer) {
                to.open(name, <Self as $crate::message::Message>::NAME);
                $crate::message::Message::write_fields(self, to);
                to.close();
            }
            fn read(
                name: &'static str,
                from: &mut impl $crate::message::Reader,
            ) -> ::std::result::Result<Self, $crate::message::Malformed> {
                from.open(name, <Self as $crate::message::Message>::NAME)?;
                let value = <Self as $crate::message::Message>::read_fields(from)?;
                from.close(<Self as $crate::message::Message>::FIELDS)?;
                Ok(value)
            }
        }
    )+};
}
