//! A name/value list in XDR, the form in which ZFS describes a pool on each of its devices (OpenZFS: `include/sys/nvpair.h`,
//! `nvs_xdr_nvlist` and `nvs_xdr_nvpair` in `module/nvpair/nvpair.c`; RFC 4506).

use super::Fault;

/// Lists in lists: a vdev of a pool is at most a spare of a replacing of a mirror of the top.
const DEEPEST: u32 = 16;
/// `NV_UNIQUE_NAME`: no name stands twice.
const UNIQUE: u32 = 1;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// `DATA_TYPE_BOOLEAN`: that it is there is all that it says.
    Flag,
    /// `DATA_TYPE_UINT64`.
    Number(u64),
    /// `DATA_TYPE_STRING`.
    Text(String),
    /// `DATA_TYPE_NVLIST`.
    List(List),
    /// `DATA_TYPE_NVLIST_ARRAY`.
    Lists(Vec<List>),
    /// Of another type, which nothing here asks for.
    Other,
}

/// A list of names and what they stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct List(Vec<(String, Value)>);

impl List {
    /// Reads a packed list: four bytes (the encoding, 1 for XDR; the byte order of the machine that wrote it; two that are 0), then the
    /// list. What follows it is not looked at.
    ///
    /// # Errors
    /// It is not of that form.
    pub(super) fn unpack(packed: &[u8]) -> Result<Self, Fault> {
        let mut at = Reader(packed);
        let [encoding, order, _, _] = at.take()?;
        if encoding != 1 || order > 1 {
            return Err(Fault("its description is not encoded as XDR"));
        }
        Self::read(&mut at, 0)
    }

    fn read(at: &mut Reader<'_>, depth: u32) -> Result<Self, Fault> {
        if depth > DEEPEST {
            return Err(Fault("its description is nested too deeply"));
        }
        if at.word()? != 0 {
            return Err(Fault("its description is of an unknown version"));
        }
        let unique = at.word()? & UNIQUE != 0;
        let mut pairs: Vec<(String, Value)> = Vec::new();
        loop {
            let whole = *at;
            let (encoded, decoded) = (at.word()?, at.word()?);
            if encoded == 0 && decoded == 0 {
                return Ok(Self(pairs));
            }
            let mut pair = whole;
            let length = usize::try_from(encoded).map_err(|_| SHORT)?;
            let mut pair = Reader(pair.bytes(length)?);
            pair.bytes(8)?;
            let name = pair.text()?;
            if unique && pairs.iter().any(|(other, _)| *other == name) {
                return Err(Fault("a name stands twice in its description"));
            }
            let (kind, count) = (pair.word()?, pair.word()?);
            let value = match (kind, count) {
                (1, _) => Value::Flag,
                (8, 1) => Value::Number(u64::from_be_bytes(pair.take()?)),
                (9, 1) => Value::Text(pair.text()?),
                (19, 1) => Value::List(Self::read(&mut pair, depth + 1)?),
                (20, _) => Value::Lists(
                    (0..count).map(|_| Self::read(&mut pair, depth + 1)).collect::<Result<_, _>>()?,
                ),
                _ => Value::Other,
            };
            let mut rest = whole;
            rest.bytes(length)?;
            *at = rest;
            pairs.push((name, value));
        }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    /// The number of this name; nothing where the name does not stand.
    ///
    /// # Errors
    /// It is no number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(Some(*number)),
            Some(_) => Err(Fault("what should be a number in its description is none")),
        }
    }

    /// The text of this name.
    ///
    /// # Errors
    /// It is no text.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Fault("what should be text in its description is none")),
        }
    }

    /// The list of this name.
    ///
    /// # Errors
    /// It is no list.
    pub(super) fn list(&self, name: &str) -> Result<Option<&Self>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(_) => Err(Fault("what should be a list in its description is none")),
        }
    }

    /// The lists of this name; none where the name does not stand.
    ///
    /// # Errors
    /// They are none.
    pub(super) fn lists(&self, name: &str) -> Result<&[Self], Fault> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Value::Lists(lists)) => Ok(lists),
            Some(_) => Err(Fault("what should be lists in its description is none")),
        }
    }

    /// The lists in the list, with their names.
    pub(super) fn inner(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.0.iter().filter_map(|(name, value)| match value {
            Value::List(list) => Some((name.as_str(), list)),
            _ => None,
        })
    }

    /// The names of the list, each a flag: as features are listed.
    pub(super) fn flags(&self) -> Vec<String> {
        let flags = self.0.iter().filter(|(_, value)| *value == Value::Flag);
        flags.map(|(name, _)| name.clone()).collect()
    }
}

const SHORT: Fault = Fault("its description is cut short");

/// What is still to be read.
#[derive(Debug, Clone, Copy)]
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn bytes(&mut self, length: usize) -> Result<&'b [u8], Fault> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.bytes(N)?.try_into().map_err(|_| SHORT)
    }

    fn word(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    /// Its length, then its bytes, filled up to a multiple of four.
    fn text(&mut self) -> Result<String, Fault> {
        let length = usize::try_from(self.word()?).map_err(|_| SHORT)?;
        let filled = length.checked_next_multiple_of(4).ok_or(SHORT)?;
        let bytes = self.bytes(filled)?.get(..length).ok_or(SHORT)?;
        if bytes.contains(&0) {
            return Err(Fault("a text in its description holds a zero byte"));
        }
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }
}
