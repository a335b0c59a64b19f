//! Spans of time, as people write them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, de};

/// More characters make no time that anybody means, and more than a number holds.
const LONGEST: usize = 16;
/// Ten years: what is added to a moment is still one.
const MOST: std::time::Duration = std::time::Duration::from_secs(10 * 366 * 24 * 3600);

/// A span of time as in Go: `500ms`, `5s`, `1m30s`; ten years at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Duration(kube::core::Duration);

impl From<std::time::Duration> for Duration {
    fn from(time: std::time::Duration) -> Self {
        Self(time.into())
    }
}

impl From<Duration> for std::time::Duration {
    fn from(time: Duration) -> Self {
        time.0.into()
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        // Longer ones make the parser panic.
        if text.is_empty() || text.len() > LONGEST {
            return Err(de::Error::custom(format!(
                "a time of no or more than {LONGEST} characters"
            )));
        }
        let time: kube::core::Duration = text.parse().map_err(de::Error::custom)?;
        if time.is_negative() || std::time::Duration::from(time) > MOST {
            return Err(de::Error::custom(format!(
                "{text} is no time between 0 and ten years"
            )));
        }
        Ok(Self(time))
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        kube::core::Duration::schema_name()
    }

    fn inline_schema() -> bool {
        kube::core::Duration::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        kube::core::Duration::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_written_is_a_time_or_an_error() {
        let read = |text: &str| serde_json::from_value::<Duration>(text.into());
        let seconds = |text: &str| std::time::Duration::from(read(text).unwrap()).as_secs_f64();
        assert!((seconds("1m30.5s") - 90.5).abs() < 1e-9);
        assert!((seconds("87600h") - 315_360_000.0).abs() < 1.0);
        for text in [
            "99999999999999999999999999h",
            "999999999999999h",
            "100000h",
            "-1s",
            "",
            "5",
            "1e9h",
            "soon",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
