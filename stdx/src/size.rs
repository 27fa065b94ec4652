//! Numbers of bytes as people write them: `64MiB`, `1G`, `4096`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// The binary units, largest first, with the bits they shift by.
const UNITS: [(&str, u32); 6] = [("E", 60), ("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10)];

/// A number of bytes. Displayed exactly, in the largest unit that divides it: `64MiB`, `4097`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// What a size may look like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a size: {text:?} (bytes, or a number with K, M, G, T, P or E: 64MiB, 64M, 67108864)")]
pub struct Invalid {
    text: String,
}

impl Size {
    /// The number of bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// For people to read: one decimal, in the largest unit that it fills: `1.5 GiB`, `0 B`.
    #[must_use]
    pub fn human(self) -> String {
        for (name, shift) in UNITS {
            if self.0 >> shift > 0 {
                let tenths = (u128::from(self.0) * 10) >> shift;
                return format!("{}.{} {name}iB", tenths / 10, tenths % 10);
            }
        }
        format!("{} B", self.0)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, shift) in UNITS {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{name}iB", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl FromStr for Size {
    type Err = Invalid;

    /// Digits, then nothing, `B`, or a binary unit: `K`, `k` and `KiB` are all 1,024.
    /// `KB`, which some read as 1,000, is refused.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim_start() {
            "" | "B" => Some(0),
            unit => {
                let letter = unit.strip_suffix("iB").unwrap_or(unit);
                UNITS
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(letter))
                    .map(|(_, shift)| *shift)
            }
        };
        let size = number
            .parse::<u64>()
            .ok()
            .zip(shift)
            .and_then(|(n, s)| n.checked_mul(1 << s));
        size.map(Size).ok_or_else(|| Invalid {
            text: text.to_owned(),
        })
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Size(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn people_write_sizes_in_several_ways() {
        for (text, bytes) in [
            ("4096", 4096),
            ("0", 0),
            ("7B", 7),
            ("1G", 1 << 30),
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("3k", 3072),
            ("15EiB", 15 << 60),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "M",
            "-1",
            "1.5G",
            "1KB",
            "1X",
            "16EiB",
            "99999999999999999999",
            "1 2",
            "1iB",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn people_read_sizes_with_one_decimal() {
        assert_eq!(Size(0).human(), "0 B");
        assert_eq!(Size(1023).human(), "1023 B");
        assert_eq!(Size(3 << 29).human(), "1.5 GiB");
        assert_eq!(Size(u64::MAX).human(), "15.9 EiB");
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_to_the_same(bytes in any::<u64>(), zeros in 0..64u32) {
            let size = Size(bytes.checked_shl(zeros).unwrap_or(0));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
