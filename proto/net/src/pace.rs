//! How much somebody may ask for: so many things a minute on average, and so many at once after a pause.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// A rate and a burst, written `PER_MINUTE:BURST`, or `PER_MINUTE` for a burst of a minute's worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Things a minute, on average.
    pub per_minute: NonZeroU32,
    /// Things at once, after a pause.
    pub burst: NonZeroU32,
}

impl Pace {
    /// The time after which there is another one.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(60) / self.per_minute.get()
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.per_minute, self.burst)
    }
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not PER_MINUTE:BURST, two whole numbers above 0 such as 60:20");
        let number = |text: &str| text.parse::<NonZeroU32>().map_err(|_| wrong());
        let (per_minute, burst) = text.split_once(':').unwrap_or((text, text));
        Ok(Self { per_minute: number(per_minute)?, burst: number(burst)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_read_as_it_is_written() {
        let pace: Pace = "120:20".parse().unwrap();
        assert_eq!((pace.to_string().as_str(), pace.interval()), ("120:20", Duration::from_millis(500)));
        assert_eq!("7".parse::<Pace>().unwrap().to_string(), "7:7");
        for text in ["", "0", "1:0", "1:", ":1", "-1", "1:2:3", "1.5", "99999999999"] {
            assert!(text.parse::<Pace>().unwrap_err().contains(text), "{text}");
        }
    }
}
