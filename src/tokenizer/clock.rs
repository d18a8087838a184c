//! The date that a chat template may ask for.

use std::fmt;

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

/// What counts as now: an input like any other, so that a run can be repeated another day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Clock(DateTime);

impl TryFrom<String> for Clock {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Clock> for String {
    fn from(clock: Clock) -> Self {
        clock.recorded(true)
    }
}

/// Now.
impl Default for Clock {
    fn default() -> Self {
        Self::now()
    }
}

/// Directives of `strftime` that give the same text here and in Python, and whether they tell more than the date.
const DIRECTIVES: [(&str, bool); 36] = [
    ("%Y", false),
    ("%m", false),
    ("%d", false),
    ("%b", false),
    ("%B", false),
    ("%h", false),
    ("%a", false),
    ("%A", false),
    ("%j", false),
    ("%y", false),
    ("%C", false),
    ("%e", false),
    ("%F", false),
    ("%D", false),
    ("%u", false),
    ("%w", false),
    ("%U", false),
    ("%W", false),
    ("%V", false),
    ("%G", false),
    ("%-d", false),
    ("%-m", false),
    ("%-j", false),
    ("%-y", false),
    ("%%", false),
    ("%H", true),
    ("%I", true),
    ("%M", true),
    ("%S", true),
    ("%p", true),
    ("%R", true),
    ("%T", true),
    ("%-H", true),
    ("%-I", true),
    ("%-M", true),
    ("%-S", true),
];

impl Clock {
    /// The local date and time, to the second.
    pub fn now() -> Self {
        let now = jiff::Zoned::now().datetime();
        Self(now.with().subsec_nanosecond(0).build().unwrap_or(now))
    }

    /// `2024-07-26`, which means its first second, or `2024-07-26T12:30:00`.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = text.len() == 10 || (text.len() == 19 && text.as_bytes()[10] == b'T');
        match text.parse::<DateTime>() {
            Ok(date) if form => Ok(Self(date)),
            Ok(_) => Err(format!("{text:?} is no date of the form 2024-07-26 or 2024-07-26T12:30:00")),
            Err(error) => Err(format!("{text:?} is no date of the form 2024-07-26 or 2024-07-26T12:30:00: {error}")),
        }
    }

    /// Seconds since 1970 in UTC, as `SOURCE_DATE_EPOCH` has them.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub(crate) fn parse_epoch(text: &str) -> Result<Self, String> {
        let wrong = |error: &dyn fmt::Display| format!("SOURCE_DATE_EPOCH is {text:?}, no seconds since 1970: {error}");
        let seconds: i64 = text.trim().parse().map_err(|error| wrong(&error))?;
        let time = jiff::Timestamp::from_second(seconds).map_err(|error| wrong(&error))?;
        Ok(Self(time.to_zoned(jiff::tz::TimeZone::UTC).datetime()))
    }

    /// The date, with the time where `time`, as [`Self::parse`] reads it.
    pub(super) fn recorded(&self, time: bool) -> String {
        if time { self.0.to_string() } else { self.0.date().to_string() }
    }

    /// The text of a format, and whether it tells the time of the day.
    pub(super) fn format(&self, format: &str) -> Result<(String, bool), String> {
        let mut rest = format;
        let mut time = false;
        while let Some(at) = rest.find('%') {
            rest = &rest[at..];
            let Some((directive, tells)) = DIRECTIVES.into_iter().find(|(directive, _)| rest.starts_with(directive))
            else {
                let shown: String = rest.chars().take(3).collect();
                return Err(format!("the directive {shown:?} of a date"));
            };
            time |= tells;
            rest = &rest[directive.len()..];
        }
        jiff::fmt::strtime::format(format, self.0).map(|text| (text, time)).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_and_its_time_are_told_apart() {
        let clock = Clock::parse("2024-07-06T08:05:09").expect("a date");
        assert_eq!(clock.format("%d %b %Y"), Ok(("06 Jul 2024".to_owned(), false)));
        assert_eq!(clock.format("%-d/%-m at %H:%M 100%%"), Ok(("6/7 at 08:05 100%".to_owned(), true)));
        assert_eq!(clock.recorded(false), "2024-07-06");
        let json = serde_json::to_string(&clock).expect("JSON");
        assert_eq!((&*json, serde_json::from_str(&json).ok()), ("\"2024-07-06T08:05:09\"", Some(clock.clone())));
        assert_eq!(Clock::parse(&clock.recorded(true)), Ok(clock));
        assert_eq!(
            Clock::parse_epoch("1720253109").map(|clock| clock.recorded(true)),
            Ok("2024-07-06T08:05:09".into())
        );
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in ["", "today", "2024-13-01", "2024-07", "20240706", "2024-07-06T08:05:09.5", "2024-07-06 08:05:09"] {
            assert!(Clock::parse(text).is_err(), "{text}");
        }
        assert!(Clock::parse_epoch("soon").is_err());
        assert!(Clock::parse("2024-07-06").expect("a date").format("%Z").is_err());
    }
}
