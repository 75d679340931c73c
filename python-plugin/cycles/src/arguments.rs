//! The plugin's arguments: `name=value`, each name once, but `flash` once for each range.

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;

use crate::cache::{FlashCosts, Geometry, Time};
use crate::model::{Chip, Costs};

/// What the plugin is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Arguments {
    pub chip: Chip,
    /// The file to which the counts are appended.
    pub out: String,
}

impl Arguments {
    /// Reads all arguments.
    ///
    /// # Errors
    /// The text of what is missing, unknown or wrong.
    pub fn parse<'a>(given: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut flash = Vec::new();
        let mut values = Values(BTreeMap::new());
        for argument in given {
            let (name, value) = argument.split_once('=').ok_or(format!("{argument:?}; expected name=value"))?;
            if name == "flash" {
                flash.push(range(value).ok_or(format!("{argument:?}; expected flash=FIRST:LENGTH in bytes"))?);
            } else if values.0.insert(name, value).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        let out = values.take("out")?.to_owned();
        let cache =
            Geometry { bytes: values.number("cache")?, ways: values.number("ways")?, line: values.number("line")? };
        if !cache.is_valid() {
            return Err(format!("a cache of {} bytes in {} ways of lines of {}", cache.bytes, cache.ways, cache.line));
        }
        let costs = Costs {
            load_use: values.time("load_use")?,
            taken_branch: values.time("taken_branch")?,
            jump: values.time("jump")?,
            unaligned_target: values.time("unaligned_target")?,
            high_multiply: values.time("high_multiply")?,
            divide: values.time("divide")?,
        };
        let flash_costs = FlashCosts {
            request: values.time("flash_request")?,
            first_word: values.time("flash_first_word")?,
            next_word: values.time("flash_next_word")?,
        };
        match values.0.keys().next() {
            Some(name) => Err(format!("{name} is unknown")),
            None => Ok(Self { chip: Chip { costs, cache, flash_costs, flash }, out }),
        }
    }
}

struct Values<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Values<'a> {
    fn take(&mut self, name: &str) -> Result<&'a str, String> {
        self.0.remove(name).ok_or(format!("{name} is missing"))
    }

    fn number<T: FromStr>(&mut self, name: &str) -> Result<T, String> {
        let value = self.take(name)?;
        value.parse().map_err(|_| format!("{name}={value}; expected a number of bytes or ways"))
    }

    /// Cycles with at most one decimal, in tenths.
    fn time(&mut self, name: &str) -> Result<Time, String> {
        let value = self.take(name)?;
        let (whole, tenths) = value.split_once('.').unwrap_or((value, "0"));
        let digits = format!("{whole}{tenths}");
        if tenths.len() != 1 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("{name}={value}; expected cycles with at most one decimal"));
        }
        digits.parse::<u32>().map(Time::from).map_err(|_| format!("{name}={value}; expected fewer cycles"))
    }
}

fn range(value: &str) -> Option<Range<u32>> {
    let (first, length) = value.split_once(':')?;
    let (first, length) = (first.parse::<u32>().ok()?, length.parse::<u32>().ok()?);
    Some(first..first.checked_add(length)?)
}
